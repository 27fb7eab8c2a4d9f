"""A tiny CLIP with CLIP's own ResNet and random weights, and two hospitals with images."""

import argparse
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fedmedclip.export.torchvision_operators import declare_missing_operators

CLASSES = ("bright_tumor", "dark_tumor")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_network():
    """Return open_clip's tiny CLIP with a tower of this kind, in evaluation mode."""

    def make(**vision):
        declare_missing_operators()
        import open_clip
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = open_clip.CLIP(**_configuration(**vision)).eval()
            # As they are made, a residual block's last scale is 0, which hides the block from every test.
            for name, parameter in network.visual.named_parameters():
                if name.endswith("bn3.weight"):
                    torch.nn.init.ones_(parameter)
        return network

    return make


@pytest.fixture(scope="session")
def model(make_network, tmp_path_factory):
    """Write the tiny ResNet CLIP as a `local-dir`, and return its name for open_clip."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    document = {
        "model_cfg": _configuration(),
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    save_file(make_network().state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Two sites with 24 and 16 images, a global test of 6 and a copy of an image at each site."""
    draw = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data")
    for site, number in (("east", 12), ("west", 8), ("global_test", 3)):
        for label, level in zip(CLASSES, (170, 80), strict=True):
            target = folder / site / label
            target.mkdir(parents=True)
            for index in range(number):
                pixels = np.clip(draw.normal(level, 40, (40, 36, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(target / f"{index}.png")
    copied = (folder / "east" / CLASSES[0] / "0.png").read_bytes()
    (folder / "east" / CLASSES[0] / "copy.png").write_bytes(copied)
    (folder / "west" / CLASSES[0] / "copy.png").write_bytes(copied)
    return folder


@pytest.fixture(scope="session")
def bundle(model, data, tmp_path_factory):
    """The model's bundle with its text tower, float32."""
    from fedmedclip.export.bundle import export_bundle
    from fedmedclip.export.prompts import read_class_prompts

    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    return export_bundle(model, None, read_class_prompts(data), folder, "fp32", with_text=True)


@pytest.fixture(scope="session")
def pool(data, bundle, tmp_path_factory):
    """The features of the data."""
    from fedmedclip.edge_client.features.feature_store import FeatureStore
    from fedmedclip.simulation.federation.feature_pool import pool_of_folder

    with FeatureStore(tmp_path_factory.mktemp("store") / "features.db") as store:
        return pool_of_folder(data, bundle, store)


@pytest.fixture
def options(data, model, bundle):
    """Return the options of the command with these changes; the bundle is in the folder already."""

    def make(out, **changes):
        values = {
            "data": data, "model": model, "pretrained": None, "methods": "moon,promptfl", "rounds": 1,
            "head_rounds": 1, "seeds": "0", "out": out, "device": "cpu", "threads": 1,
            "no_floors": True,
        }  # fmt: skip
        shutil.copytree(bundle.folder, out / "bundle", dirs_exist_ok=True)
        return argparse.Namespace(**{**values, **changes})

    return make


def _configuration(**vision):
    tower = vision or {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    text = {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    return {"embed_dim": 24, "quick_gelu": True, "vision_cfg": tower, "text_cfg": text}
