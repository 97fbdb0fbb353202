"""WinoGrande: the likelier of several answers, by lm-eval's own task definition."""
