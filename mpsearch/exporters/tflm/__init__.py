"""A quantized network as a folder for TensorFlow Lite Micro."""
