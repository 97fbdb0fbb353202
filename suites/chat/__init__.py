"""Two-turn conversation: MT-Bench's questions and their pocket form, whose answers can be checked without a judge.

There is no `task.yaml`: the second prompt contains the model's own first answer, and stock lm-eval fixes all prompts
before the first completion. A task that put the reference in its place would measure something else, so the suite
runs under this project's harness only.
"""
