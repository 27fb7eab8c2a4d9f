"""A tiny CLIP with random weights, and what the exports of it share."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from fedmedclip.export.torchvision_operators import declare_missing_operators
from fedmedclip.protocol.bundle.bundle import Bundle, ClassPrompts

MakeModel = Callable[..., str]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Write a random two-layer ViT as a `local-dir` and return its name for open_clip."""

    def make(image_size: int | list[int] = 32, quick_gelu: bool = False, **preprocessing: Any) -> str:
        declare_missing_operators()
        import open_clip
        import torch
        from safetensors.torch import save_file

        configuration: dict[str, Any] = {
            "model_cfg": {
                "embed_dim": 24,
                "quick_gelu": quick_gelu,
                "vision_cfg": {
                    "image_size": image_size,
                    "patch_size": 8,
                    "width": 64,
                    "head_width": 16,
                    "layers": 2,
                },
                "text_cfg": {
                    "context_length": 16,
                    "vocab_size": 49408,
                    "width": 16,
                    "heads": 2,
                    "layers": 1,
                },
            },
            "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], **preprocessing},
        }
        folder = tmp_path_factory.mktemp("models") / "tiny-clip"
        folder.mkdir()
        (folder / "open_clip_config.json").write_text(json.dumps(configuration))
        torch.manual_seed(0)
        network = open_clip.CLIP(**configuration["model_cfg"])
        save_file(network.state_dict(), folder / "open_clip_model.safetensors")
        return f"local-dir:{folder}"

    return make


@pytest.fixture(scope="session")
def tiny_model(make_model: MakeModel) -> str:
    return make_model()


@pytest.fixture(scope="session")
def prompts() -> ClassPrompts:
    return ClassPrompts(
        templates=["a picture of a {}.", "a scan with {}."],
        classes={"no_tumor": ["no tumor", "nothing"], "glioma": ["a glioma"], "other": ["something else"]},
    )


@pytest.fixture(scope="session", params=["fp32", "int8"])
def tiny_bundle(
    request: pytest.FixtureRequest,
    tiny_model: str,
    prompts: ClassPrompts,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    """The bundle of the tiny model, in either precision."""
    from fedmedclip.export.bundle import export_bundle

    return export_bundle(
        tiny_model, None, prompts, tmp_path_factory.mktemp("bundles") / "bundle", request.param
    )


@pytest.fixture(scope="session")
def text_bundle(tiny_model: str, prompts: ClassPrompts, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of the tiny model with its text tower."""
    from fedmedclip.export.bundle import export_bundle

    folder = tmp_path_factory.mktemp("bundles") / "with-text"
    return export_bundle(tiny_model, None, prompts, folder, with_text=True)
