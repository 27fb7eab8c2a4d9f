"""`fedmedclip bundle`: what a bundle is, and whether it is to be trusted on this box."""
