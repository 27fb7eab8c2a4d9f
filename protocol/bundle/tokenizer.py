"""From texts to the text tower's input, with the same numbers as open_clip's tokenizer gives.

Neither PyTorch nor open_clip is needed: the vocabulary is in the bundle. Two libraries may be: `ftfy` for
texts with anything but plain ASCII, `tokenizers` for models with a Hugging Face tokenizer. Both are handed
in.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.bundle.bundle import TextTower
from fedmedclip.protocol.bundle.byte_pairs import BytePairEncoder, BytePairs
from fedmedclip.protocol.bundle.text_cleaning import FixText, clean_text
from fedmedclip.protocol.errors import BundleError, FedMedClipError, InvalidInputError
from fedmedclip.protocol.malformed import MALFORMED

MAX_CHARACTERS = 10_000
Tokens = npt.NDArray[np.int64]
Tokenizer = Callable[[Sequence[str]], Tokens]


@dataclass(frozen=True)
class TextLibraries:
    """`fix_text` is `ftfy.fix_text`; `tokenizer_from_json` makes a `tokenizers.Tokenizer`."""

    fix_text: FixText
    tokenizer_from_json: Callable[[str], Any]


def open_tokenizer(content: bytes, tower: TextTower, libraries: TextLibraries) -> Tokenizer:
    """Return the tokenizer of a bundle: texts to int64 (texts, context length).

    `content` is the bundle's tokenizer file. Raises BundleError when it cannot be used; the tokenizer raises
    InvalidInputError for a text of more than 10,000 characters.
    """
    if tower.tokenizer == "byte pairs":
        try:
            encoder = BytePairEncoder(msgspec.json.decode(content, type=BytePairs))
        except MALFORMED as error:
            raise BundleError(f"the bundle's tokenizer is damaged ({error}); export it again") from error
        encode: Tokenizer = lambda cleaned: _framed(cleaned, encoder, tower.context_length)  # noqa: E731
    else:
        encode = _with_library(content, tower, libraries.tokenizer_from_json)

    def tokenize(texts: Sequence[str]) -> Tokens:
        if too_long := [text for text in texts if len(text) > MAX_CHARACTERS]:
            raise InvalidInputError(
                f"a prompt has {len(too_long[0])} characters, {MAX_CHARACTERS} are allowed: "
                f"{too_long[0][:40]!r}..."
            )
        return encode([clean_text(text, tower.cleaning, libraries.fix_text) for text in texts])

    return tokenize


def _framed(texts: Sequence[str], encode: BytePairEncoder, context_length: int) -> Tokens:
    """Start, tokens, end, then zeros; of a text that is too long the first tokens, and still the end."""
    tokens = np.zeros((len(texts), context_length), dtype=np.int64)
    for row, text in zip(tokens, texts, strict=True):
        found = [encode.start, *encode(text)[: context_length - 2], encode.end]
        row[: len(found)] = found
    return tokens


def _with_library(content: bytes, tower: TextTower, tokenizer_from_json: Callable[[str], Any]) -> Tokenizer:
    with _faults_of_library("cannot be read", "update the package `tokenizers`"):
        tokenizer = tokenizer_from_json(content.decode())
        padding = tokenizer.padding or {}
    for length in (padding.get("length"), padding.get("pad_to_multiple_of")):
        if length is not None and length > tower.context_length:
            raise BundleError(
                f"the bundle's tokenizer would give {length} tokens for a text, not {tower.context_length}; "
                "export the bundle again"
            )

    def encode(texts: Sequence[str]) -> Tokens:
        # Lengths, padding and truncation are part of the file.
        with _faults_of_library("fails on texts", "export the bundle again"):
            rows = [found.ids for found in tokenizer.encode_batch(list(texts))]
        if lengths := sorted({len(row) for row in rows} - {tower.context_length}):
            raise BundleError(
                f"the bundle's tokenizer gives {lengths[0]} tokens for a text, "
                f"not {tower.context_length}; export the bundle again"
            )
        tokens = np.array(rows, dtype=np.int64).reshape(len(texts), tower.context_length)
        if tower.blanked_token is not None:
            tokens[tokens == tower.blanked_token] = 0
        return tokens

    return encode


@contextmanager
def _faults_of_library(what: str, advice: str) -> Iterator[None]:
    """Let whatever the library raises be a BundleError; a panic, for it is in Rust, is no Exception."""
    try:
        yield
    except FedMedClipError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise BundleError(f"the bundle's tokenizer {what} ({str(error)[:200]}); {advice}") from error
