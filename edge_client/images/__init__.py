"""Image files: finding them, reading them to 8-bit RGB, and which train, validate and test."""
