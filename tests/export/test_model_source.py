"""Names, tags and files of weights that cannot be used are refused with the way out."""

from pathlib import Path

import pytest

from fedmedclip.export.model import load_model
from fedmedclip.export.model_source import find_source
from fedmedclip.export.torchvision_operators import declare_missing_operators
from fedmedclip.protocol.errors import InvalidInputError

declare_missing_operators()


@pytest.mark.parametrize(
    ("model", "pretrained", "complaint"),
    [
        ("ViT-B32", "openai", "near names: .*ViT-B-32"),
        ("vit-b-32-QUICKGELU", "openai", "near names: .*ViT-B-32-quickgelu"),
        ("no such thing at all", "x", "local-dir:PATH"),
        ("ViT-B-32", "laion2b_s34b_b79", "near names: .*laion2b_s34b_b79k"),
        ("RN50x4", "zzz", "it knows: openai"),
        ("ViT-B-32", None, "its tags: openai"),
        ("ViT-B-32", "weights/missing.pt", "nor is there a file"),
        ("ViT-B-32", "openai", "use --model ViT-B-32-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "has no tag"),
        ("local-dir:nowhere", None, "no open_clip_config.json in nowhere"),
        ("hf-hub:owner/name", "openai", "leave out --pretrained"),
    ],
)
def test_unusable_names_say_what_to_do(model: str, pretrained: str | None, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        load_model(model, pretrained)
    assert "\n" not in str(caught.value)


def test_slash_in_a_name_is_open_clips_own_spelling() -> None:
    assert find_source("ViT-B/32", "laion2b_s34b_b79k").shown_name == "ViT-B-32"


def test_weights_from_a_file_keep_the_preprocessing_of_their_model(tmp_path: Path) -> None:
    weights = tmp_path / "siglip.bin"
    weights.write_bytes(b"")
    source = find_source("ViT-B-16-SigLIP", str(weights))
    assert source.shown_pretrained == "siglip.bin"
    assert source.preprocessing["resize_mode"] == "squash"
    assert source.preprocessing["mean"] == (0.5, 0.5, 0.5)
    # Its published weights disagree on mean and deviation, so open_clip's default stands.
    assert "mean" not in find_source("ViT-L-14", str(weights)).preprocessing


@pytest.mark.parametrize(
    ("model", "pretrained"), [("ViT-B-32", "laion2b_s34b_b79k"), ("hf-hub:owner/name", None)]
)
def test_no_network_is_one_clear_line(
    model: str, pretrained: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InvalidInputError, match="could not be downloaded; check the name") as caught:
        load_model(model, pretrained)
    assert "\n" not in str(caught.value)
