"""What of an unexpected error may be said: its kind and place, never its words, which may quote a header."""

import traceback
from pathlib import Path

from fedmedclip.protocol.errors import FedMedClipError


def in_words(error: BaseException) -> str:
    """Return one line for an error: our own words of our own errors, kind and place of all others."""
    if isinstance(error, FedMedClipError):
        return str(error)
    places = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(places[-1].filename).name}, line {places[-1].lineno}" if places else ""
    return f"internal error: {type(error).__name__}{where}"
