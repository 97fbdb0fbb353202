"""Code: complete a Python function from its signature and docstring, in HumanEval's form; the metric is pass@1.

There is no `task.yaml`: stock lm-eval can only score code by running it in its own process, and that is not what this
suite measures. The harness runs the programs in a sandbox and a separate process judges them.
"""
