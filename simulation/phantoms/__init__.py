"""Generated images of brains, and the small CLIP that knows them."""
