"""`fedmedclip demo`: a whole federation with the real commands in processes of their own."""
