"""How a hospital's box becomes a site of a federation: its keys, its configuration, its request."""
