"""MMLU: the likelier of four letters, by lm-eval's own task definition of each of the 57 subjects."""
