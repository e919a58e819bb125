"""LiteRT files (.tflite) as steps that the ONNX importer runs: nothing in a file is executed."""
