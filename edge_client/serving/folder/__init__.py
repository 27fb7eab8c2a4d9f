"""The watch folder: image files that appear in it are answered beside them, and stay as they are."""
