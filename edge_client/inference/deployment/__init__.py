"""One ONNX file that classifies: encoder, heads and ensemble, for any ONNX Runtime. Needs onnx."""
