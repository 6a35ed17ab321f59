"""Find the subject: the model registry, ONNX Runtime sessions and the classical segmenter."""
