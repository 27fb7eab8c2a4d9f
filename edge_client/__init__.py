"""Everything that happens inside a hospital: images, features, heads, training, offline inference."""
