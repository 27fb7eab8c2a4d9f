"""What is found to look alike: copies whatever their files are, and not what only shows the same anatomy."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageEnhance, ImageFilter

from fedmedclip.edge_client.images.appearance import Appearance, Appearances, appearance_of
from fedmedclip.edge_client.images.look_alikes import (
    LARGEST_ANYWAY,
    LARGEST_SHARE,
    LookAlikes,
    find_look_alikes,
    group_rows,
)

SIDE = 96


def aligned_image(seed: int) -> Image.Image:
    """An image of one anatomy, as chest X-rays are: all alike, but for a few proportions and the texture."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    grey = np.full((SIDE, SIDE), 170.0)
    for centre in (0.3, 0.7):
        width, height = generator.normal(0.14, 0.012), generator.normal(0.3, 0.02)
        inside = ((x - centre) / width) ** 2 + ((y - 0.5) / height) ** 2
        grey -= 100 * generator.normal(1, 0.08) / (1 + np.exp(np.minimum(8 * (inside - 1), 50)))
    texture = Image.fromarray(generator.normal(0, 1, (24, 24)).astype(np.float32))
    grey += 10 * np.asarray(texture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    grey += generator.normal(0, 3, grey.shape)
    return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")


def slices_of_a_patient(seed: int, count: int) -> list[Image.Image]:
    """Images that differ a little from one to the next, of a patient who looks like no other."""
    generator = np.random.default_rng(1000 + seed)
    first, last = (
        np.asarray(
            Image.fromarray(generator.normal(0, 1, (9, 9)).astype(np.float32)).resize(
                (SIDE, SIDE), Image.Resampling.BICUBIC
            )
        )
        for _ in range(2)
    )
    return [
        Image.fromarray(np.clip(128 + 50 * (first + 0.3 * number * last), 0, 255).astype(np.uint8)).convert(
            "RGB"
        )
        for number in range(count)
    ]


def appearances(images: list[Image.Image]) -> Appearances:
    return Appearances.of([appearance_of(image) for image in images])


def groups_of(images: list[Image.Image]) -> npt.NDArray[np.int64]:
    return group_rows(find_look_alikes(appearances(images)), [np.full(len(images), -1)])[0]


def as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "same": lambda image: image.copy(),
    "jpeg": as_jpeg,
    "smaller": lambda image: image.resize((61, 70)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "turned": lambda image: image.rotate(1, Image.Resampling.BILINEAR),
}


@pytest.fixture(scope="module")
def aligned() -> list[Image.Image]:
    return [aligned_image(seed) for seed in range(150)]


def test_pixels_are_the_same_whatever_the_file() -> None:
    image = aligned_image(1)
    decoded = []
    for form in ("PNG", "BMP", "TIFF"):
        file = io.BytesIO()
        image.save(file, form)
        decoded.append(appearance_of(Image.open(file).convert("RGB")))
    assert len({one.pixel_hash for one in decoded}) == 1
    assert appearance_of(image.resize((SIDE, SIDE - 1))).pixel_hash != decoded[0].pixel_hash
    again = Appearance.from_bytes(decoded[0].to_bytes())
    assert again is not None
    assert again.pixel_hash == decoded[0].pixel_hash
    np.testing.assert_array_equal(again.thumbnail, decoded[0].thumbnail)
    assert Appearance.from_bytes(b"short") is None


def test_the_same_anatomy_is_no_resemblance(aligned: list[Image.Image]) -> None:
    thumbnails = appearances(aligned).thumbnails.reshape(len(aligned), -1)
    correlations = np.corrcoef(thumbnails)[np.triu_indices(len(aligned), 1)]
    assert np.median(correlations) > 0.9
    found = find_look_alikes(appearances(aligned))
    assert found.plain_threshold is None
    assert len(set(groups_of(aligned).tolist())) >= 0.95 * len(aligned)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_is_found_among_the_same_anatomy(aligned: list[Image.Image], edit: str) -> None:
    images = aligned + [EDITS[edit](image) for image in aligned[:12]]
    groups = groups_of(images)
    np.testing.assert_array_equal(groups[len(aligned) :], groups[:12])
    found = find_look_alikes(appearances(images))
    pairs = {tuple(pair) for pair in found.pairs[found.identical].tolist()}
    assert pairs == ({(row, len(aligned) + row) for row in range(12)} if edit == "same" else set())


def test_neighbouring_slices_are_one_group_and_patients_are_not() -> None:
    patients = [slices_of_a_patient(seed, 4) for seed in range(30)]
    groups = groups_of([image for slices in patients for image in slices]).reshape(30, 4)
    assert (groups == groups[:, :1]).all()
    assert len(set(groups[:, 0].tolist())) == 30


def test_a_blank_image_looks_like_nothing_but_its_copy() -> None:
    blank = [Image.new("RGB", (40, 40), (value,) * 3) for value in (0, 0, 128, 255)]
    assert groups_of(blank + [aligned_image(seed) for seed in range(5)]).tolist() == [
        0,
        0,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
    ]
    assert groups_of([]).tolist() == []
    assert groups_of(blank[:1]).tolist() == [0]


def test_a_long_chain_is_cut_where_it_is_weakest() -> None:
    count = 100
    pairs = np.array([[row, row + 1] for row in range(count - 1)])
    closeness = np.where(np.arange(count - 1) % 10 == 9, 0.1, 0.9).astype(np.float32)
    order = np.argsort(-closeness, kind="stable")
    none = np.zeros(count - 1, bool)
    chain = LookAlikes(pairs[order], closeness[order], closeness[order], none, none)
    groups, cut = group_rows(chain, [np.full(count, -1)])
    assert all(groups[row] == groups[row - row % 10] for row in range(count))
    assert np.bincount(groups).max() <= LARGEST_SHARE * count
    assert cut > 0
    # Copies and names hold together whatever comes of it.
    assert len(set(group_rows(chain, [np.zeros(count, np.int64)])[0].tolist())) == 1
    copies = LookAlikes(chain.pairs, chain.closeness, chain.correlations, none, ~none)
    assert len(set(group_rows(copies, [np.full(count, -1)])[0].tolist())) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 60).flatmap(
        lambda count: st.tuples(
            st.lists(
                st.tuples(st.integers(0, count - 1), st.integers(0, count - 1), st.booleans()).filter(
                    lambda link: link[0] < link[1]
                )
            ),
            arrays.arrays(np.int64, count, elements=st.integers(-1, 4)),
        )
    )
)
def test_groups_hold_what_is_named_and_nothing_that_is_not_linked(
    given_set: tuple[list[tuple[int, int, bool]], npt.NDArray[np.int64]],
) -> None:
    links, named = given_set
    pairs = np.array([link[:2] for link in links], np.int64).reshape(-1, 2)
    copies = np.array([link[2] for link in links], bool)
    closeness = np.linspace(1, 0, len(links), dtype=np.float32)
    found = LookAlikes(pairs, closeness, closeness, np.zeros(len(links), bool), copies)
    groups, cut = group_rows(found, [named])
    everything, _ = group_rows(
        LookAlikes(pairs, closeness, closeness, np.zeros(len(links), bool), np.ones(len(links), bool)),
        [named],
    )
    for first, second in pairs[copies].tolist():
        assert groups[first] == groups[second]
    for number in range(5):
        assert len(set(groups[named == number].tolist())) <= 1
    # No group holds what no chain of names and links ties to it, and its number is its lowest row.
    for number in set(groups.tolist()):
        members = np.flatnonzero(groups == number)
        assert members[0] == number
        assert len(set(everything[members].tolist())) == 1
    sure, _ = group_rows(found.copies_only(), [named])
    largest_sure = max(np.bincount(sure).max(), LARGEST_ANYWAY, int(LARGEST_SHARE * len(named)))
    assert np.bincount(groups).max() <= largest_sure
    assert cut == 0 or np.bincount(everything).max() > LARGEST_ANYWAY


def test_a_set_is_compared_in_blocks_as_at_once(
    monkeypatch: pytest.MonkeyPatch, aligned: list[Image.Image]
) -> None:
    images = aligned + [as_jpeg(image) for image in aligned[:20]]
    whole = find_look_alikes(appearances(images))
    monkeypatch.setattr("fedmedclip.edge_client.images.look_alikes._BLOCK", 32)
    blocks = find_look_alikes(appearances(images))
    assert {tuple(pair) for pair in whole.pairs.tolist()} == {tuple(pair) for pair in blocks.pairs.tolist()}
    monkeypatch.setattr("fedmedclip.edge_client.images.look_alikes._MOST_LINKS", 15)
    fewer = find_look_alikes(appearances(images))
    assert 0 < len(fewer.pairs) <= 15
    assert fewer.closeness.min() >= np.median(whole.closeness) - 0.05
