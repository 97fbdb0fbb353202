"""The sparse engine: kernels on packed weights in which zeros cost neither memory nor time.

`csrc/` holds the C++ part (`_kernels`), which imports nothing else of the harness.
"""
