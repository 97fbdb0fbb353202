"""Scoring of GSM8K's presets that read answers in another form than GSM8K's own."""
