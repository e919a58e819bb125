"""A quantized network as C, ONNX or LiteRT, checked against the one assigned."""
