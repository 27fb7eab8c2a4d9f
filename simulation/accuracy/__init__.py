"""`fedmedclip bench accuracy`: methods side by side on the same data, splits, encoder and bytes."""
