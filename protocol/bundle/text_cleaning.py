"""What open_clip does to a text before its tokenizer sees it."""

import html
import string
from collections.abc import Callable
from typing import Literal

Cleaning = Literal["lower", "whitespace", "canonicalize"]
FixText = Callable[[str], str]

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean_text(text: str, cleaning: Cleaning, fix_text: FixText) -> str:
    """Return the text as open_clip's cleaning function of this name gives it.

    `fix_text` is `ftfy.fix_text`, which mends wrongly decoded text; it is handed in, so that this module
    needs no ftfy, and called only for texts that it could change. HTML entities are replaced twice, as there.
    """
    if not _is_plain(text):
        text = html.unescape(html.unescape(fix_text(text)))
    if cleaning == "canonicalize":
        text = text.strip().replace("_", " ").translate(_WITHOUT_PUNCTUATION).lower()
        return " ".join(text.split())
    text = " ".join(text.split())
    return text.lower() if cleaning == "lower" else text


def _is_plain(text: str) -> bool:
    """Whether ftfy and the replacement of HTML entities would leave a text as it is."""
    return text.isascii() and text.isprintable() and "&" not in text
