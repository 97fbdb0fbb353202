"""How long the gate and the history take on a run of many variants."""
