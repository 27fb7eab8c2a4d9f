"""A model's tokenizer as a file that needs neither PyTorch nor open_clip, or the reason why there is none."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from fedmedclip.protocol.bundle.byte_pairs import CONTRACTIONS, WORD_END, BytePairs, Runs, byte_symbols
from fedmedclip.protocol.bundle.text_cleaning import Cleaning
from fedmedclip.protocol.errors import InvalidInputError

_EVERY_CHARACTER = "".join(map(chr, range(0x110000)))


@dataclass(frozen=True)
class TokenizerData:
    """The content of `tokenizer.json`, and what `protocol.bundle.bundle.TextTower` says of it."""

    content: bytes
    kind: Literal["byte pairs", "hugging face"]
    cleaning: Cleaning
    blanked_token: int | None = None


def tokenizer_data(tokenizer: Any, context_length: int) -> TokenizerData:
    """Return what the edge needs to tokenise like an open_clip tokenizer.

    Raises InvalidInputError with the reason when it cannot be reproduced there.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    if isinstance(tokenizer, SimpleTokenizer):
        return _byte_pairs(tokenizer)
    if isinstance(tokenizer, HFTokenizer):
        return _hugging_face(tokenizer, context_length)
    raise _not_reproducible(f"{type(tokenizer).__name__} is not one of open_clip's kinds")


def _byte_pairs(tokenizer: Any) -> TokenizerData:
    if tokenizer.reduction_fn is not None:
        raise _not_reproducible(
            "it shortens long texts by chance or grammar (reduction_mask), not from the end"
        )
    special = sorted(tokenizer.all_special_ids)
    pairs = BytePairs(
        merges=[" ".join(merge) for merge in tokenizer.bpe_ranks],
        special_tokens=[tokenizer.decoder[number] for number in special],
        letters=_runs(r"[\p{L}]"),
        numbers=_runs(r"[\p{N}]"),
        others=_runs(r"[^\s\p{L}\p{N}]"),
        spellings={},
    )
    words = [symbol + end for end in ("", WORD_END) for symbol in byte_symbols()]
    words += [merge.replace(" ", "") for merge in pairs.merges] + pairs.special_tokens
    if {word: number for number, word in enumerate(words)} != tokenizer.encoder:
        raise _not_reproducible(
            "its vocabulary is not made of bytes, merges and special tokens, in this order"
        )
    if odd := [token for token in pairs.special_tokens if re.escape(token) != token]:
        raise _not_reproducible(f"its special token {odd[0]!r} is a regular expression")
    pairs = msgspec.structs.replace(pairs, spellings=_spellings(pairs.special_tokens))
    return TokenizerData(msgspec.json.encode(pairs), "byte pairs", _cleaning(tokenizer))


def _hugging_face(tokenizer: Any, context_length: int) -> TokenizerData:
    if tokenizer.tokenizer_mode:
        raise _not_reproducible(f"its mode {tokenizer.tokenizer_mode!r} is not supported")
    found = tokenizer.tokenizer
    backend = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise _not_reproducible(f"{type(found).__name__} has no `tokenizers` form")
    from tokenizers import Tokenizer

    copied = Tokenizer.from_str(backend.to_str())
    copied.enable_truncation(context_length, direction=found.truncation_side)
    copied.enable_padding(
        direction=found.padding_side,
        pad_id=found.pad_token_id,
        pad_type_id=found.pad_token_type_id,
        pad_token=found.pad_token,
        length=context_length,
    )
    blanked = found.sep_token_id if tokenizer.strip_sep_token else None
    return TokenizerData(copied.to_str().encode(), "hugging face", _cleaning(tokenizer), blanked)


def _cleaning(tokenizer: Any) -> Cleaning:
    from open_clip.tokenizer import get_clean_fn

    names: tuple[Cleaning, ...] = ("lower", "whitespace", "canonicalize")
    for name in names:
        if tokenizer.clean_fn is get_clean_fn(name):
            return name
    raise _not_reproducible("its cleaning function is not one of open_clip's")


def _runs(character_class: str) -> Runs:
    """Return the characters that a class of `regex` matches where case is ignored, as in open_clip."""
    import regex

    pattern = regex.compile(f"{character_class}+", regex.IGNORECASE)
    return [(match.start(), match.end() - 1) for match in pattern.finditer(_EVERY_CHARACTER)]


def _spellings(special_tokens: list[str]) -> dict[str, str]:
    import regex

    characters = sorted(set("".join((*special_tokens, *CONTRACTIONS))))
    return {
        character: "".join(regex.findall(regex.escape(character), _EVERY_CHARACTER, regex.IGNORECASE))
        for character in characters
    }


def _not_reproducible(reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"this model's tokenizer cannot be reproduced on the edge: {reason}; export without --with-text"
    )
