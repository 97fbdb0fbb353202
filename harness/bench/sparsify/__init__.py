"""One-shot pruning and quantization next to what others offer, in one run on one machine."""
