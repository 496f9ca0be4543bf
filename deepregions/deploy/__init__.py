"""A trained system outside PyTorch: one ONNX file, and the runtimes that run it."""
