"""Why a file cannot be used, and the limits that every reader keeps."""

MAX_FILE_BYTES = 256 * 1024 * 1024
# 64 megapixels are 256 MB once decoded; an edge box has 2 GB.
MAX_PIXELS = 64 * 1024 * 1024
# Resizing the short side of a one-pixel strip to the encoder's size would make an image of gigabytes.
MAX_SIDE_RATIO = 32


class RefusedFileError(Exception):
    """A file cannot be used; `reason` is short, the same for its kind, and never from the file."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check_size(width: int, height: int) -> None:
    """Raise RefusedFileError for an image, as its header describes it, that is too large or too narrow."""
    if min(width, height) < 1:
        raise RefusedFileError("corrupt")
    if width * height > MAX_PIXELS:
        raise RefusedFileError("too many pixels")
    if max(width, height) > MAX_SIDE_RATIO * min(width, height):
        raise RefusedFileError("too narrow")


def reason_of_decoding_error(error: Exception) -> str:
    """Return "truncated", "too many pixels", "of a kind that is not read", or "corrupt" for all else that a
    decoder raised.
    """
    if isinstance(error, MemoryError):
        return "too many pixels"
    message = str(error).lower()
    if "unsupported" in message or "not supported" in message:
        return "of a kind that is not read"
    cut_off = isinstance(error, EOFError) or "truncated" in message or "unexpected end" in message
    return "truncated" if cut_off else "corrupt"
