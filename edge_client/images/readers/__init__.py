"""Readers: one module per family of image files, each from a seekable file to 8-bit RGB.

`edge_client.images.opening` is the door to them. A reader refuses a file by raising `RefusedFileError` with a
short reason, judges sizes by the header before any memory is spent on pixels, and keeps nothing of a header
but what the pixels need.
"""
