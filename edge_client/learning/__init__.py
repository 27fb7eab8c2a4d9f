"""Local training of the heads; the only room of a site that needs PyTorch."""
