"""Accuracy recovery: sparse lineages of one base model next to the dense lineage that had the same fine-tuning."""
