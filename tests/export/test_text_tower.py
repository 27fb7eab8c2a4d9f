"""The exported text tower and its tokenizer give what open_clip gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.features.new_prompts import embed_classes
from fedmedclip.export.bundle import export_bundle
from fedmedclip.export.model import LoadedModel, load_model
from fedmedclip.export.parity import ParityError
from fedmedclip.export.text_tower import HARD_TEXTS, write_text_tower
from fedmedclip.export.tokenizer_data import tokenizer_data
from fedmedclip.protocol.bundle.bundle import (
    TEXT_ENCODER,
    TOKENIZER,
    Bundle,
    ClassPrompts,
    TextParity,
    TextTower,
)
from fedmedclip.protocol.bundle.tokenizer import TextLibraries, Tokenizer, open_tokenizer
from fedmedclip.protocol.errors import InvalidInputError

LENGTH = 16


def open_clip_tokenizer(**settings: Any) -> Any:
    from fedmedclip.export.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=LENGTH, **settings)


def reproduced(tokenizer: Any) -> Tokenizer:
    import ftfy

    data = tokenizer_data(tokenizer, LENGTH)
    tower = TextTower(data.kind, LENGTH, data.cleaning, TextParity(0, 0.0, 0.0), data.blanked_token)
    return open_tokenizer(data.content, tower, TextLibraries(ftfy.fix_text, lambda content: None))


@pytest.fixture(scope="module", params=["lower", "whitespace", "canonicalize"])
def tokenizers(request: pytest.FixtureRequest) -> tuple[Any, Tokenizer]:
    """open_clip's tokenizer with one of its cleanings, and the same as the edge has it."""
    original = open_clip_tokenizer(clean=request.param)
    return original, reproduced(original)


FRAGMENTS = st.sampled_from(
    [
        *(
            "<start_of_text>",
            "<END_of_TEXT>",
            "'S",
            "'ſ",
            "'LL",
            "&amp;",
            "&lt;",
            "_",
            "  ",
            "\n",
            "<b>",
            "é",
        ),
        *("\u0301", "ſ", "\u212a", "İ", "ı", "\u0345", "ⅷ", "\x1c", "\x85", "\u2028", "\ufeff", "\x1b[1m"),
        *("Ã©", "ﬁ", "👩‍⚕️", "脳", "ورم", "½", "Å"),
    ]
)
TEXTS = st.lists(st.one_of(st.text(max_size=12), FRAGMENTS, st.from_regex(r"[a-zA-Z]{1,9}")), max_size=8)


@given(TEXTS.map("".join))
@settings(max_examples=80, deadline=None)
def test_any_text_has_open_clips_tokens(tokenizers: tuple[Any, Tokenizer], text: str) -> None:
    original, ours = tokenizers
    np.testing.assert_array_equal(ours([text]), original([text]).numpy())


def test_hard_texts_have_open_clips_tokens(tokenizers: tuple[Any, Tokenizer]) -> None:
    original, ours = tokenizers
    np.testing.assert_array_equal(ours(HARD_TEXTS), original(list(HARD_TEXTS)).numpy())


@pytest.mark.parametrize("mask", ["random", "simple", "syntax"])
def test_a_tokenizer_with_chance_in_it_is_refused(mask: str) -> None:
    with pytest.raises(InvalidInputError, match="reduction_mask"):
        tokenizer_data(open_clip_tokenizer(reduction_mask=mask), LENGTH)


def test_an_endless_prompt_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="10001 characters"):
        reproduced(open_clip_tokenizer())(["a" * 10_001])


def test_new_prompts_are_embedded_as_an_export_would(text_bundle: Bundle, prompts: ClassPrompts) -> None:
    np.testing.assert_allclose(embed_classes(text_bundle, prompts), text_bundle.class_embeddings, atol=1e-5)
    assert text_bundle.manifest.text is not None
    assert text_bundle.manifest.text.parity.embedding_max_abs_error < 1e-5


@pytest.mark.slow
def test_an_export_with_text_is_the_same_every_time(
    text_bundle: Bundle, tiny_model: str, prompts: ClassPrompts, tmp_path: Path
) -> None:
    again = export_bundle(tiny_model, None, prompts, tmp_path / "bundle", with_text=True)
    assert again.digest == text_bundle.digest
    assert {TEXT_ENCODER, TOKENIZER} <= again.manifest.files.keys()


def test_other_tokens_stop_the_export(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmedclip.protocol.bundle.byte_pairs.CONTRACTIONS", ("'x",))
    with pytest.raises(ParityError, match="other tokens than open_clip's"):
        write_text_tower(load_model(tiny_model, None), prompts, tmp_path)


TEXT = {"context_length": LENGTH, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 16, "width": 16, "head_width": 8, "layers": 1}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("CLIP", {"pool_type": "eos", "eos_id": 49407}),
        ("CustomTextCLIP", {"pool_type": "last", "no_causal_mask": True, "proj_bias": True}),
        ("CustomTextCLIP", {"pool_type": "first", "no_causal_mask": True}),
        ("CoCa", {"embed_cls": True, "output_tokens": True}),
    ],
    ids=["eos", "last", "first", "CoCa"],
)
def test_every_pooling_and_kind_of_model(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    import open_clip
    import torch

    tiny = load_model(tiny_model, None)
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"embed_dim": 24, "vision_cfg": dict(VISION), "text_cfg": TEXT | settings}
    if kind == "CoCa":
        arguments["vision_cfg"] |= {"attentional_pool": True, "output_tokens": True}
        # A decoder that reads another number of tokens than the text tower.
        arguments["multimodal_cfg"] = {"context_length": 9, "width": 16, "heads": 2, "layers": 1}
    network = getattr(open_clip, kind)(**arguments).eval().requires_grad_(False)
    loaded = LoadedModel(tiny.source, network, tiny.tokenizer, tiny.transform, tiny.preprocessing)
    tower = write_text_tower(loaded, prompts, tmp_path)
    assert tower.parity.embedding_max_abs_error < 1e-5
    assert json.loads((tmp_path / TOKENIZER).read_bytes())["special_tokens"][0] == "<start_of_text>"


def test_hugging_face_tokenizers_are_reproduced(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    library = pytest.importorskip("tokenizers")
    from open_clip.tokenizer import HFTokenizer

    vocabulary = {"[PAD]": 0, "[SEP]": 1, "[UNK]": 2, "a": 3, "scan": 4, "of": 5, "tumor": 6}
    core = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = library.pre_tokenizers.Whitespace()
    core.post_processor = library.processors.TemplateProcessing(
        single="$A [SEP]", special_tokens=[("[SEP]", 1)]
    )
    special = {"pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(tmp_path)
    original = HFTokenizer(str(tmp_path), context_length=LENGTH, strip_sep_token=True)
    data = tokenizer_data(original, LENGTH)
    tower = TextTower(data.kind, LENGTH, data.cleaning, TextParity(0, 0.0, 0.0), data.blanked_token)
    ours = open_tokenizer(data.content, tower, TextLibraries(str, library.Tokenizer.from_str))
    texts = ["a scan  of a tumor", "", "of " * 40]
    expected: npt.NDArray[np.int64] = original(texts).numpy()
    np.testing.assert_array_equal(ours(texts), expected)
