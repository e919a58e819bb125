"""A quantized network as an ONNX model with QuantizeLinear/DequantizeLinear (QDQ)."""
