"""Speed of evaluation next to stock lm-eval, and what each part of our way gives."""
