"""The encoder gives unit embeddings of what it is shown, or a BundleError that says why not."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from fedmedclip.edge_client.features.encoder import Encoder, encoded_images
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import BundleError
from tests.edge_client.conftest import EMBEDDING_SIZE, HEIGHT, WIDTH, MakeBundle, tiny_encoder


def pixels(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_gives_unit_embeddings_and_counts(tiny_bundle: Bundle, threads: int | None) -> None:
    before = encoded_images()
    with Encoder(tiny_bundle, threads) as encoder:
        embeddings = encoder.encode(pixels(5))
        assert encoder.encode(pixels(0)).shape == (0, EMBEDDING_SIZE)
    assert embeddings.shape == (5, EMBEDDING_SIZE)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-3
    assert encoded_images() - before == 5


def test_an_8_bit_embedding_does_not_depend_on_its_batch(tmp_path: Path, make_bundle: MakeBundle) -> None:
    plain, quantized = tmp_path / "plain.onnx", tmp_path / "quantized.onnx"
    onnx.save(tiny_encoder(EMBEDDING_SIZE, 0, HEIGHT, WIDTH), plain)
    quantize_dynamic(plain, quantized, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    bundle = make_bundle(tmp_path / "bundle", encoder=quantized.read_bytes(), precision="int8")
    dark, bright = pixels(3) // 8, pixels(3)
    with Encoder(bundle) as encoder:
        alone = encoder.encode(dark)
        together = encoder.encode(np.concatenate([dark, bright]))
    np.testing.assert_array_equal(together[:3], alone)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_one_image_alone_is_encoded_as_among_others(
    tmp_path: Path, make_bundle: MakeBundle, precision: str
) -> None:
    plain, used = tmp_path / "plain.onnx", tmp_path / "used.onnx"
    onnx.save(tiny_encoder(EMBEDDING_SIZE, 0, HEIGHT, WIDTH), plain)
    if precision == "int8":
        quantize_dynamic(plain, used, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    else:
        plain.rename(used)
    bundle = make_bundle(tmp_path / "bundle", encoder=used.read_bytes(), precision=precision)
    images = pixels(4)
    with Encoder(bundle, 2) as encoder, Encoder(bundle, 2, together=True) as alone:
        among_others = encoder.encode(images)
        one_by_one = [alone.encode(image[None])[0] for image in images]
    np.testing.assert_allclose(one_by_one, among_others, atol=1e-6)


def test_refuses_what_is_no_onnx_file(tmp_path: Path, make_bundle: MakeBundle) -> None:
    for content in (b"", b"not an encoder", tiny_encoder(16, 0, HEIGHT, WIDTH).SerializeToString()[:500]):
        bundle = make_bundle(tmp_path / "bundle", encoder=content)
        with pytest.raises(BundleError, match=r"image_encoder\.onnx.*export the bundle again") as caught:
            Encoder(bundle)
        assert "\n" not in str(caught.value)


def with_input(encoder: onnx.ModelProto, *, name: str = "image", batch: int | str = "batch") -> bytes:
    declared = encoder.graph.input[0]
    for node in encoder.graph.node:
        node.input[:] = [name if item == declared.name else item for item in node.input]
    declared.name = name
    first = declared.type.tensor_type.shape.dim[0]
    if isinstance(batch, int):
        first.dim_value = batch
    else:
        first.dim_param = batch
    return bytes(encoder.SerializeToString())


def test_refuses_an_encoder_that_is_not_what_the_manifest_says(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    other_encoders = {
        "other size": tiny_encoder(EMBEDDING_SIZE, 0, WIDTH, HEIGHT).SerializeToString(),
        "other embedding": tiny_encoder(8, 0, HEIGHT, WIDTH).SerializeToString(),
        "other name": with_input(tiny_encoder(EMBEDDING_SIZE, 0, HEIGHT, WIDTH), name="pixels"),
        "fixed batch": with_input(tiny_encoder(EMBEDDING_SIZE, 0, HEIGHT, WIDTH), batch=2),
    }
    for name, encoder in other_encoders.items():
        bundle = make_bundle(tmp_path / name, encoder=encoder)
        with pytest.raises(BundleError, match=r"expected.*'image'.*'embedding'"):
            Encoder(bundle)


def test_refuses_embeddings_that_are_not_finite(tmp_path: Path, make_bundle: MakeBundle) -> None:
    encoder = tiny_encoder(EMBEDDING_SIZE, 0, HEIGHT, WIDTH)
    scale = next(constant for constant in encoder.graph.initializer if constant.name == "scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.asarray(np.float32(np.nan)), "scale"))
    bundle = make_bundle(tmp_path / "bundle", encoder=encoder.SerializeToString())
    with Encoder(bundle) as opened, pytest.raises(BundleError, match="not finite"):
        opened.encode(pixels(2))


def test_refuses_other_pixels(tiny_bundle: Bundle) -> None:
    with Encoder(tiny_bundle) as encoder:
        for images in (pixels(2).astype(np.float32), pixels(2)[0], pixels(2).transpose(0, 2, 1, 3)):
            with pytest.raises(ValueError, match="expected uint8"):
                encoder.encode(images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="closed"):
        encoder.encode(pixels(1))
