"""Generates and judges answers: prompts through lm-eval, conversations, generated code in a sandbox."""
