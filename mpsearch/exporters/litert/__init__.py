"""A quantized network as a LiteRT file (.tflite) that computes with integers (docs/litert.md)."""
