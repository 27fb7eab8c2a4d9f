"""open_clip model -> ONNX bundle. Runs at the coordinating centre, never on the edge."""
