"""A bundle that is small, quick and real: an ONNX encoder whose embedding depends on the image."""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image

from fedmedclip.protocol.bundle.bundle import (
    CLASS_EMBEDDINGS,
    FORMAT,
    IMAGE_ENCODER,
    MANIFEST,
    Bundle,
    ClassPrompts,
    Manifest,
    Parity,
    Preprocessing,
    open_bundle,
)

CLASS_NAMES = ("glioma", "healthy", "stroke")
# Not square, so that a swap of height and width shows.
HEIGHT, WIDTH = 24, 32
EMBEDDING_SIZE = 16

MakeBundle = Callable[..., Bundle]
MakeImage = Callable[..., Path]


def tiny_encoder(embedding_size: int, seed: int, height: int, width: int) -> ModelProto:
    """Mean colour of patches of 8 x 8, a random projection, unit length."""
    rng = np.random.default_rng(seed)
    features = 3 * (height // 8) * (width // 8)
    constants = {
        "scale": np.float32(1 / 255),
        "projection": rng.normal(size=(features, embedding_size)).astype(np.float32),
        "offset": rng.normal(size=embedding_size).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "projection"], ["projected"]),
        helper.make_node("Add", ["projected", "offset"], ["shifted"]),
        helper.make_node("LpNormalization", ["shifted"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", embedding_size])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])


def write_tiny_bundle(
    folder: Path,
    *,
    class_names: Sequence[str] = CLASS_NAMES,
    embedding_size: int = EMBEDDING_SIZE,
    logit_scale: float = 10.0,
    seed: int = 0,
    height: int = HEIGHT,
    width: int = WIDTH,
    encoder: bytes | None = None,
    **changes: Any,
) -> Bundle:
    """Write a bundle and open it. `encoder` replaces the ONNX file, `changes` fields of the manifest."""
    if encoder is None:
        encoder = tiny_encoder(embedding_size, seed, height, width).SerializeToString(deterministic=True)
    classes = np.random.default_rng([seed, 1]).normal(size=(len(class_names), embedding_size))
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    encoded_classes = io.BytesIO()
    np.save(encoded_classes, classes.astype(np.float32))
    files = {IMAGE_ENCODER: encoder, CLASS_EMBEDDINGS: encoded_classes.getvalue()}
    manifest = Manifest(
        format=FORMAT,
        model="tiny",
        pretrained="random",
        precision="fp32",
        embedding_size=embedding_size,
        logit_scale=logit_scale,
        class_names=list(class_names),
        prompts=ClassPrompts(["a picture of a {}."], {name: [name] for name in class_names}),
        preprocessing=Preprocessing(
            height=height,
            width=width,
            resize_mode="shortest",
            interpolation="bicubic",
            fill_color=0,
            mean=(0.5, 0.5, 0.5),
            standard_deviation=(0.5, 0.5, 0.5),
        ),
        parity=Parity(1, 0, 0.0, 1.0, 1.0, 1e-4),
        versions={},
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **changes)))
    return open_bundle(folder)


@pytest.fixture(scope="session")
def make_bundle() -> MakeBundle:
    """`write_tiny_bundle`, for bundles that differ from `tiny_bundle`."""
    return write_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of three classes, images 24 x 32, embeddings of 16 values. Not to be changed."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def random_pixels(seed: int, height: int = 30, width: int = 40) -> npt.NDArray[np.uint8]:
    """Coarse random colours, different for every seed, that survive JPEG and resizing."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_image(path: Path, seed: int, **options: Any) -> Path:
    """Write an image file, of the kind that its ending says, that is different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_pixels(seed)).save(path, **options)
    return path


@pytest.fixture(scope="session")
def make_image() -> MakeImage:
    """`write_image(path, seed)`."""
    return write_image


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """A data folder with 12 glioma, 6 healthy and 3 stroke images."""
    root = tmp_path / "data"
    for first, (name, count) in enumerate({"glioma": 12, "healthy": 6, "stroke": 3}.items()):
        for number in range(count):
            write_image(root / name / f"{number:02}.png", seed=1000 * first + number)
    return root
