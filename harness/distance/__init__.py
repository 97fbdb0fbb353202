"""How far a variant is from its dense model on fixed text: top-1 agreement, KL, and where greedy continuations part."""
