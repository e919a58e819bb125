"""Float ONNX files into mpsearch's graph (docs/onnx-import.md). Nothing in the file is executed."""
