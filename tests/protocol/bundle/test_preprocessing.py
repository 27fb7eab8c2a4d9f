"""`fit` gives the pixels that open_clip's own inference transform gives, on images that are not square."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedmedclip.export.torchvision_operators import declare_missing_operators
from fedmedclip.protocol.bundle.bundle import Preprocessing
from fedmedclip.protocol.bundle.preprocessing import fit

MEAN = (0.48145466, 0.4578275, 0.40821073)
STANDARD_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def preprocessing_of(**changes: Any) -> Preprocessing:
    values: dict[str, Any] = {
        "height": 32,
        "width": 32,
        "resize_mode": "shortest",
        "interpolation": "bicubic",
        "fill_color": 0,
        "mean": MEAN,
        "standard_deviation": STANDARD_DEVIATION,
    }
    return Preprocessing(**{**values, **changes})


def pixels_of_open_clip(image: Image.Image, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """What open_clip's transform makes of the image, before normalisation: uint8 (height, width, 3)."""
    declare_missing_operators()
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform = image_transform_v2(
        PreprocessCfg(
            size=(preprocessing.height, preprocessing.width),
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            interpolation=preprocessing.interpolation,
            resize_mode=preprocessing.resize_mode,
            fill_color=preprocessing.fill_color,
        ),
        is_train=False,
    )
    scaled = transform(image).permute(1, 2, 0).numpy() * 255
    return np.rint(scaled).astype(np.uint8)


def random_image(width: int, height: int, seed: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(values, "RGBA").convert(mode)


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(24, 300),
    height=st.integers(24, 300),
    target=st.tuples(st.integers(8, 64), st.integers(8, 64))
    | st.integers(8, 64).map(lambda edge: (edge, edge)),
    resize_mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill_color=st.sampled_from([0, 127, 255]),
    mode=st.sampled_from(["RGB", "L", "RGBA", "LA", "P", "CMYK"]),
    seed=st.integers(0, 1000),
)
def test_equals_open_clip_to_the_pixel(
    width: int,
    height: int,
    target: tuple[int, int],
    resize_mode: str,
    interpolation: str,
    fill_color: int,
    mode: str,
    seed: int,
) -> None:
    image = random_image(width, height, seed, mode)
    preprocessing = preprocessing_of(
        height=target[0],
        width=target[1],
        resize_mode=resize_mode,
        interpolation=interpolation,
        fill_color=fill_color,
    )
    fitted = fit(image, preprocessing)
    assert fitted.dtype == np.uint8
    np.testing.assert_array_equal(fitted, pixels_of_open_clip(image, preprocessing))


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(640, 480), (512, 683), (1201, 801), (97, 61)])
def test_equals_open_clip_on_camera_sizes(resize_mode: str, size: tuple[int, int]) -> None:
    image = random_image(*size, seed=size[0])
    preprocessing = preprocessing_of(height=224, width=224, resize_mode=resize_mode)
    np.testing.assert_array_equal(fit(image, preprocessing), pixels_of_open_clip(image, preprocessing))


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_even_a_line_of_pixels_fits(resize_mode: str, size: tuple[int, int]) -> None:
    fitted = fit(random_image(*size, seed=0), preprocessing_of(resize_mode=resize_mode))
    assert fitted.shape == (32, 32, 3)


def test_padding_takes_the_fill_color() -> None:
    fitted = fit(
        Image.new("RGB", (64, 16), (9, 9, 9)), preprocessing_of(resize_mode="longest", fill_color=200)
    )
    assert (fitted[:12] == 200).all()
    assert (fitted[12:20] == 9).all()
    assert (fitted[20:] == 200).all()
