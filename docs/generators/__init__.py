"""Pages and the picture that are made of the code, so that they cannot be stale."""
