"""Slicing measured: its cost in perplexity and skill, its gain in bytes and time, and what training recovers."""
