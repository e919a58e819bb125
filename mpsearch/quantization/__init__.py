"""Numbers to codes: the quantizer, ranges, the quantized network and its file."""
