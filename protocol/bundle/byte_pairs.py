"""CLIP's tokenizer: byte pair encoding (Sennrich et al. 2016) of UTF-8 bytes.

A text is cut into words; the bytes of a word, the last one marked as such, are joined pair by pair in the
order of the vocabulary's merges, until no pair of neighbours is one. The vocabulary comes with the bundle,
and with it what a letter, a number and a blank is: Unicode grows every year, and centre and edge must cut
alike.
"""

import re
from collections.abc import Iterable
from heapq import heappop, heappush

import msgspec

from fedmedclip.protocol.errors import BundleError

WORD_END = "</w>"
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_MAX_CHARACTER = 0x10FFFF

# First and last code point of each run of characters.
Runs = list[tuple[int, int]]


class BytePairs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A vocabulary of byte pairs, as the bundle's `tokenizer.json` holds it.

    `merges` are two symbols with a blank between, best first. `special_tokens` begin with those for start and
    end of a text. `letters`, `numbers` and `others` are the characters of the three kinds of words,
    `spellings` the characters that count as an ASCII one in contractions and special tokens, by that one.
    """

    merges: list[str]
    special_tokens: list[str]
    letters: Runs
    numbers: Runs
    others: Runs
    spellings: dict[str, str]


class BytePairEncoder:
    """A text's token numbers, without start and end."""

    def __init__(self, pairs: BytePairs) -> None:
        """Index a vocabulary; raises BundleError when it makes no sense."""
        merges = [tuple(merge.split(" ")) for merge in pairs.merges]
        if any(len(merge) != 2 for merge in merges) or len(pairs.special_tokens) < 2:
            raise BundleError("the bundle's vocabulary is damaged; export the bundle again")
        symbols = byte_symbols()
        words = [*symbols, *(symbol + WORD_END for symbol in symbols), *map("".join, merges)]
        # Of equal entries the last one counts, as in open_clip.
        self._numbers = {word: number for number, word in enumerate([*words, *pairs.special_tokens])}
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._symbols = dict(zip(_byte_order(), symbols, strict=True))
        self._words = _word_pattern(pairs)
        self._special = frozenset(pairs.special_tokens)
        self.start, self.end = (self._numbers[token] for token in pairs.special_tokens[:2])
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """Return the numbers of a cleaned text's tokens."""
        return [number for word in self._words.findall(text) for number in self._encode_word(word)]

    def _encode_word(self, word: str) -> list[int]:
        if word not in self._known:
            symbols = [self._symbols[byte] for byte in word.encode()]
            parts = [word] if word in self._special else self._join([*symbols[:-1], symbols[-1] + WORD_END])
            self._known[word] = [self._numbers[part] for part in parts]
        return self._known[word]

    def _join(self, parts: list[str]) -> list[str]:
        """Join the pair of the best rank, of equal ones the first, as long as there is one.

        Pairs wait in a heap, and parts know their neighbours: a word of n letters takes n log n steps.
        """
        following, preceding = [*range(1, len(parts)), -1], list(range(-1, len(parts) - 1))
        waiting: list[tuple[int, int, str, str]] = []

        def wait(at: int) -> None:
            if at >= 0 and (behind := following[at]) >= 0:
                pair = parts[at], parts[behind]
                if (rank := self._ranks.get(pair)) is not None:
                    heappush(waiting, (rank, at, *pair))

        for at in range(len(parts)):
            wait(at)
        while waiting:
            _, at, first, second = heappop(waiting)
            behind = following[at]
            # One of them may have been joined to its other neighbour since.
            if behind < 0 or (parts[at], parts[behind]) != (first, second):
                continue
            parts[at], parts[behind] = first + second, ""
            following[at] = following[behind]
            if following[at] >= 0:
                preceding[following[at]] = at
            wait(preceding[at])
            wait(at)
        return [part for part in parts if part]


def byte_symbols() -> list[str]:
    """Return the character that stands for each byte in the vocabulary, in the vocabulary's order.

    Bytes that are printable in Latin-1 stand for themselves, in order; the others follow as U+0100 and up
    (GPT-2, Radford et al. 2019).
    """
    printable = _printable_bytes()
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


def _byte_order() -> list[int]:
    """Return the bytes in the order of `byte_symbols`."""
    printable = _printable_bytes()
    return printable + [byte for byte in range(256) if byte not in printable]


def _printable_bytes() -> list[int]:
    return [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


def _word_pattern(pairs: BytePairs) -> re.Pattern[str]:
    """Return the pattern of a word: special token, contraction, letters, one number, or other signs."""
    fixed = [
        "".join(f"[{re.escape(pairs.spellings.get(character) or character)}]" for character in text)
        for text in (*pairs.special_tokens, *CONTRACTIONS)
    ]
    letters, numbers, others = map(_character_class, (pairs.letters, pairs.numbers, pairs.others))
    return re.compile("|".join([*fixed, f"{letters}+", numbers, f"{others}+"]))


def _character_class(runs: Iterable[tuple[int, int]]) -> str:
    runs = list(runs)
    if not runs or not all(0 <= first <= last <= _MAX_CHARACTER for first, last in runs):
        raise BundleError("the bundle's table of characters is damaged; export the bundle again")
    return "[" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs) + "]"
