"""A bundle's tokenizer that is damaged is refused, when it is read or at its first text."""

import time
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
import tokenizers

from fedmedclip.protocol.bundle.bundle import TextParity, TextTower
from fedmedclip.protocol.bundle.byte_pairs import BytePairs
from fedmedclip.protocol.bundle.tokenizer import TextLibraries, Tokenizer, open_tokenizer
from fedmedclip.protocol.errors import BundleError

LENGTH = 8


def opened(content: bytes, kind: str = "hugging face") -> Tokenizer:
    tower = TextTower(
        "byte pairs" if kind == "byte pairs" else "hugging face", LENGTH, "lower", TextParity(0, 0, 0)
    )
    return open_tokenizer(content, tower, TextLibraries(str, tokenizers.Tokenizer.from_str))


def written(vocabulary: dict[str, int], change: Callable[[Any], object]) -> bytes:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    change(tokenizer)
    return tokenizer.to_str().encode()


def test_one_that_cannot_say_a_word_of_a_text_is_refused() -> None:
    content = written({"a": 1}, lambda made: made.enable_padding(length=LENGTH))
    with pytest.raises(BundleError, match=r"fails on texts \(WordLevel error"):
        opened(content)(["a tumor"])


def test_one_that_gives_texts_of_different_lengths_is_refused() -> None:
    content = written({"a": 1, "?": 0}, lambda made: made)
    with pytest.raises(BundleError, match="gives 1 tokens for a text, not 8"):
        opened(content)(["a", "a tumor"])


@pytest.mark.parametrize(
    "padding", [{"length": 1 << 62}, {"length": 1 << 30}, {"pad_to_multiple_of": 1 << 30}]
)
def test_one_that_would_fill_the_memory_is_refused_before_its_first_text(padding: dict[str, int]) -> None:
    content = written({"a": 1, "?": 0}, lambda made: made.enable_padding(**padding))
    with pytest.raises(BundleError, match=r"would give .* tokens for a text, not 8"):
        opened(content)


def test_a_panic_of_the_library_is_a_damaged_tokenizer() -> None:
    class PanicException(BaseException):
        pass

    class Panicking:
        padding = None

        def encode_batch(self, texts: list[str]) -> None:
            raise PanicException("index out of bounds")

    tower = TextTower("hugging face", LENGTH, "lower", TextParity(0, 0, 0))
    tokenize = open_tokenizer(b"", tower, TextLibraries(str, lambda content: Panicking()))
    with pytest.raises(BundleError, match="index out of bounds"):
        tokenize(["a"])


@pytest.mark.parametrize("content", [b'{"merge\xff": []}', b"", b"[" * 100_000])
def test_a_vocabulary_of_byte_pairs_that_is_none_is_damaged(content: bytes) -> None:
    with pytest.raises(BundleError, match="tokenizer is damaged"):
        opened(content, "byte pairs")


def test_a_word_of_ten_thousand_letters_takes_no_seconds() -> None:
    """With a vocabulary that joins every pair of letters, each of them somewhere else."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = BytePairs(
        [f"{one} {other}" for one in letters for other in letters],
        ["<start>", "<end>"],
        letters=[(0x61, 0x7A)],
        numbers=[(0x30, 0x39)],
        others=[(0x21, 0x2F)],
        spellings={},
    )
    tokenize = opened(msgspec.json.encode(pairs), "byte pairs")
    word = "".join(Random(1).choices(letters, k=10_000))
    began = time.process_time()
    tokens = tokenize([word])
    assert time.process_time() - began < 0.5
    assert tokens.shape == (1, LENGTH)
