"""The text side of a bundle: written, and compared with open_clip on its prompts and on hard texts."""

from pathlib import Path
from typing import Any

import numpy as np

from fedmedclip.export.class_embeddings import PROMPTS_PER_BATCH, embed_texts
from fedmedclip.export.model import LoadedModel
from fedmedclip.export.onnx_session import open_session
from fedmedclip.export.parity import ParityError
from fedmedclip.export.text_encoder import (
    TEXT_INPUT_NAME,
    TEXT_OUTPUT_NAME,
    context_length,
    text_encoder_to_onnx,
)
from fedmedclip.export.tokenizer_data import tokenizer_data
from fedmedclip.protocol.bundle.bundle import TEXT_ENCODER, TOKENIZER, ClassPrompts, TextParity, TextTower
from fedmedclip.protocol.bundle.prompts import prompt_texts
from fedmedclip.protocol.bundle.tokenizer import TextLibraries, Tokenizer, open_tokenizer

MAX_ABS_ERROR = 1e-4
# Accents, composed and not; emoji with joiners; CJK; right to left; entities, once and twice; wrongly decoded
# text; controls; blanks; contractions; special tokens; what changes its length in lower case; over-long text.
HARD_TEXTS = (
    *("", " ", "a", "A PHOTO of a Cat.", "it's they've I'LL we'd 'ſ", "x_y {} [z] #1,234.5 50%"),
    *("Ménière's disease, naïve café", "Me\u0301nie\u0300re", "İstanbul ß ẞ ǅ ﬁ ﬂ", "Å Å Ω K"),
    *(
        "👩‍⚕️🩻 scan 👍🏽",
        "脳腫瘍のMRI画像",
        "正常大脑",
        "뇌종양",
        "ورم في الدماغ",
        "גידול במוח",
        "опухоль мозга",
    ),
    *(
        "a &lt; b &amp;amp; c &eacute; &#x1F600;",
        "lÃ©sion â€œquotedâ€\x9d",
        "ＦＵＬＬ width ｶﾅ",
        "“curly” ‘quotes’",
    ),
    *(
        "tab\tline\nbreak\r\n\x0b\x0c end",
        "\x00\x01\x1b[31mred\x7f\ufeff",
        "no\u00a0break\u2003em\u200bzero\u3000wide",
    ),
    *("<start_of_text> a <END_OF_TEXT>", "²³ ½ Ⅷ ५ ٣", "\u0345 \u0301 \ufffd", "\U0010ffff\ue000"),
    *("word " * 300, "unbroken" * 60, "脳" * 200, "🧠" * 90),
)


def write_text_tower(loaded: LoadedModel, prompts: ClassPrompts, folder: Path) -> TextTower:
    """Write the text tower and its tokenizer to a new bundle's folder; return what the manifest says.

    Raises InvalidInputError when the tower or its tokenizer cannot be exported, and ParityError when tokens
    differ from open_clip's, or an embedding by more than 1e-4 in one value.
    """
    length = context_length(loaded)
    data = tokenizer_data(loaded.tokenizer, length)
    (folder / TOKENIZER).write_bytes(data.content)
    (folder / TEXT_ENCODER).write_bytes(text_encoder_to_onnx(loaded).SerializeToString(deterministic=True))
    of_prompts = [
        text for phrases in prompts.classes.values() for text in prompt_texts(prompts.templates, phrases)
    ]
    texts = [*of_prompts, *HARD_TEXTS]
    unmeasured = TextParity(texts=len(texts), embedding_max_abs_error=0.0, tolerance=MAX_ABS_ERROR)
    tower = TextTower(data.kind, length, data.cleaning, unmeasured, data.blanked_token)
    tokenize = open_tokenizer(data.content, tower, _libraries())
    _require_equal_tokens(loaded, tokenize, texts)
    error = _largest_error(loaded, folder / TEXT_ENCODER, tokenize, texts)
    if not error <= MAX_ABS_ERROR:
        raise ParityError(
            f"the export was stopped: text embeddings differ from open_clip's by up to {error:g}, "
            f"allowed is {MAX_ABS_ERROR:g}; export without --with-text"
        )
    parity = TextParity(len(texts), float(f"{error:.2g}"), MAX_ABS_ERROR)
    return TextTower(data.kind, length, data.cleaning, parity, data.blanked_token)


def text_versions() -> dict[str, str]:
    """Return the versions that the tokenizer's file depends on, beside those of every bundle."""
    import ftfy
    import regex

    return {"ftfy": str(ftfy.__version__), "regex": str(regex.__version__)}


def _libraries() -> TextLibraries:
    """Return what open_clip's own tokenizers use."""
    import ftfy

    def tokenizer_from_json(content: str) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_str(content)

    return TextLibraries(ftfy.fix_text, tokenizer_from_json)


def _require_equal_tokens(loaded: LoadedModel, tokenize: Tokenizer, texts: list[str]) -> None:
    expected, found = loaded.tokenizer(texts).numpy(), tokenize(texts)
    if expected.shape != found.shape:
        raise ParityError(
            f"the export was stopped: open_clip's tokenizer gives {expected.shape[1]} tokens per text, "
            f"the exported one {found.shape[1]}; export without --with-text"
        )
    if different := [text for text, row in zip(texts, (expected != found).any(axis=1), strict=True) if row]:
        raise ParityError(
            f"the export was stopped: the text {different[0][:60]!r} has other tokens than open_clip's; "
            "export without --with-text"
        )


def _largest_error(loaded: LoadedModel, encoder: Path, tokenize: Tokenizer, texts: list[str]) -> float:
    """Return the largest difference in one value of two unit embeddings, or NaN."""
    session = open_session(encoder)
    errors: list[float] = []
    # The first batch is a single text, because an exporter can fix the batch size unnoticed.
    starts = [0, *range(1, len(texts), PROMPTS_PER_BATCH)]
    for start, end in zip(starts, [*starts[1:], len(texts)], strict=True):
        batch = texts[start:end]
        found = session.run([TEXT_OUTPUT_NAME], {TEXT_INPUT_NAME: tokenize(batch)})[0]
        errors.append(float(np.abs(found - embed_texts(loaded, batch)).max()))
    return float(np.max(errors))
