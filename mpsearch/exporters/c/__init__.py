"""A quantized network as a folder of C99: fixed kernels, and constants made from its integers."""
