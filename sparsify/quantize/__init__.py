"""Post-training quantization: pure rounding functions, the on-disk layout, and the stage that applies them."""
