"""Engines next to each other on the same random weights: how fast a token comes, and how near the memory's limit."""
