"""A split depends on content and seed alone, is kept for ever, and gives each class its share."""

import hashlib
import random
import resource
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.images.split import (
    DEFAULT_FRACTIONS,
    ContentLabel,
    Part,
    draw_parts,
    leak_of,
    read_split,
    split_images,
)
from fedmedclip.protocol.errors import InvalidInputError, StorageError


def images(label: str, count: int, first: int = 0) -> list[ContentLabel]:
    numbers = range(first, first + count)
    return [
        ContentLabel(label, f"{label}/{number}.png", hashlib.sha256(f"{label}{number}".encode()).digest())
        for number in numbers
    ]


def sizes(parts: dict[bytes, Part]) -> dict[str, int]:
    return dict(Counter(parts.values()))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "test": 1}),
        (3, {"train": 1, "validation": 1, "test": 1}),
        (10, {"train": 7, "validation": 1, "test": 2}),
        (100, {"train": 70, "validation": 10, "test": 20}),
    ],
)
def test_sizes_of_a_class(tmp_path: Path, count: int, expected: dict[str, int]) -> None:
    assert sizes(split_images(images("a", count), tmp_path / "split.csv", seed=1)) == expected


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(0, 1 << 62), st.randoms())
def test_each_class_is_in_every_part_whatever_the_order(
    counts: list[int], seed: int, shuffler: random.Random
) -> None:
    classes = [images(f"class {index}", count) for index, count in enumerate(counts)]
    everything = [image for members in classes for image in members]
    parts = draw_parts(everything, {}, seed, DEFAULT_FRACTIONS)
    shuffled = shuffler.sample(everything, len(everything))
    assert draw_parts(shuffled, {}, seed, DEFAULT_FRACTIONS) == parts
    for members in classes:
        found = Counter(parts[image.content_hash] for image in members)
        assert len(found) == min(len(members), 3)
        for part, fraction in DEFAULT_FRACTIONS.items():
            assert abs(found[part] - fraction * len(members)) < 1.5
        # A class is drawn by itself: other classes do not move its images.
        assert draw_parts(members, {}, seed, DEFAULT_FRACTIONS).items() <= parts.items()


def test_seeds_differ(tmp_path: Path) -> None:
    first = split_images(images("a", 50), tmp_path / "1.csv", seed=1)
    assert first == split_images(images("a", 50), tmp_path / "again.csv", seed=1)
    assert first != split_images(images("a", 50), tmp_path / "2.csv", seed=2)


def test_recorded_images_keep_their_part(tmp_path: Path) -> None:
    record = tmp_path / "state" / "split.csv"
    first = split_images(images("a", 20), record, seed=1)
    grown = split_images(images("a", 40), record, seed=2)
    assert first.items() <= grown.items()
    assert sizes(grown) == {"train": 28, "validation": 4, "test": 8}
    # Images that are away for a while come back to where they were.
    assert split_images(images("a", 5), record, seed=1).items() <= grown.items()
    assert split_images(images("a", 40), record, seed=3) == grown


def test_an_unchanged_record_is_not_written_again(tmp_path: Path) -> None:
    record = tmp_path / "split.csv"
    split_images(images("a", 20), record, seed=1)
    before = record.stat().st_ino
    split_images(images("a", 20), record, seed=1)
    assert record.stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir()] == ["split.csv"]


def test_copies_and_relabelled_images_keep_one_part(tmp_path: Path) -> None:
    record = tmp_path / "split.csv"
    members = images("a", 9) + images("b", 9)
    copies = [ContentLabel("b", f"b/copy of {image.name}", image.content_hash) for image in members[:4]]
    parts = split_images(members + copies, record, seed=1)
    assert len(parts) == len(members)
    renamed = [ContentLabel("b", f"new/{image.name}", image.content_hash) for image in members]
    assert split_images(renamed, record, seed=1) == parts
    assert {image.label for image, _ in read_split(record).values()} == {"b"}


def test_the_record_holds_any_file_name(tmp_path: Path) -> None:
    record = tmp_path / "split.csv"
    odd = [
        ContentLabel("a", name, hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
        for name in (
            'a,"b".png',
            "new\nline.png",
            "Größe.png",
            "=1+1.png",
            "./=1+1.png",
            b"\xff\xfe.png".decode("utf-8", "surrogateescape"),
        )
    ]
    parts = split_images(odd, record, seed=1)
    assert read_split(record) == {image.content_hash: (image, parts[image.content_hash]) for image in odd}
    # Whoever opens it in a spreadsheet runs nothing.
    assert b",=" not in record.read_bytes()


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda lines: [], 1),
        (lambda lines: lines[1:], 1),
        (lambda lines: [*lines[:3], lines[3][:40]], 4),
        (lambda lines: [*lines, lines[2]], 12),
        (
            lambda lines: [
                lines[0],
                lines[1].replace(",train", ",training").replace(",test", ",tests"),
                *lines[2:],
            ],
            2,
        ),
    ],
)
def test_a_damaged_record_is_refused_and_kept(tmp_path: Path, damage: object, line: int) -> None:
    record = tmp_path / "split.csv"
    split_images(images("a", 10), record, seed=1)
    lines = record.read_text().splitlines()
    damaged = "".join(f"{line}\n" for line in damage(lines))  # type: ignore[operator]
    record.write_text(damaged)
    with pytest.raises(InvalidInputError, match=rf"split\.csv, line {line}"):
        split_images(images("a", 10), record, seed=1)
    assert record.read_text() == damaged


@pytest.mark.parametrize(
    "values", [(0.5, 0.1, 0.1), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)]
)
def test_refuses_fractions(tmp_path: Path, values: tuple[float, float, float]) -> None:
    fractions: dict[Part, float] = dict(zip(DEFAULT_FRACTIONS, values, strict=True))
    with pytest.raises(InvalidInputError, match="fractions"):
        split_images(images("a", 10), tmp_path / "split.csv", 1, fractions)


def test_a_part_can_be_left_out() -> None:
    parts = draw_parts(images("a", 10), {}, 1, {"train": 0.8, "validation": 0.0, "test": 0.2})
    assert sizes(parts) == {"train": 8, "test": 2}


def test_a_record_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"split\.csv cannot be written"):
        split_images(images("a", 10), tmp_path / "file" / "split.csv", seed=1)


def test_a_write_that_fails_leaves_the_old_record(tmp_path: Path) -> None:
    record = tmp_path / "split.csv"
    split_images(images("a", 10), record, seed=1)
    before = record.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StorageError, match="check the path and the free space"):
            split_images(images("a", 100), record, seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert record.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["split.csv"]


def test_a_record_that_a_spreadsheet_saved_with_a_byte_order_mark_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "split.csv"
    split_images(images("a", 5), file, seed=1)
    recorded = read_split(file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_split(file) == recorded


def grouped(sizes: list[tuple[str, int]]) -> list[ContentLabel]:
    return [
        ContentLabel(
            label, f"{group}-{n}", hashlib.sha256(f"{label} {group} {n}".encode()).digest(), f"group {group}"
        )
        for group, (label, size) in enumerate(sizes)
        for n in range(size)
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30)), min_size=1, max_size=40),
    st.integers(0, 2**62),
)
def test_a_group_is_in_one_part_and_a_class_in_as_many_as_it_has_groups(
    sizes: list[tuple[str, int]], seed: int
) -> None:
    images = grouped(sizes)
    parts = draw_parts(images, {}, seed, DEFAULT_FRACTIONS)
    of_group: dict[str, set[Part]] = {}
    for image in images:
        of_group.setdefault(image.group, set()).add(parts[image.content_hash])
    assert all(len(found) == 1 for found in of_group.values())
    for label in "abc":
        groups = sum(name == label for name, _ in sizes)
        expected = set(["train", "test", "validation"][:groups])
        assert {parts[image.content_hash] for image in images if image.label == label} == expected
    assert draw_parts(images[::-1], {}, seed, DEFAULT_FRACTIONS) == parts


def test_parts_keep_their_shares_where_groups_allow_it() -> None:
    images = grouped([("a", size) for size in [30, 25, 20, 10, 8, 5, 4, 3, 2, 2, *[1] * 20]])
    parts = Counter(draw_parts(images, {}, 0, DEFAULT_FRACTIONS).values())
    assert abs(parts["train"] / len(images) - 0.7) < 0.03
    assert abs(parts["test"] / len(images) - 0.2) < 0.03


def test_a_new_image_joins_the_recorded_images_of_its_group() -> None:
    images = grouped([("a", 6), ("a", 6), ("a", 6), ("a", 6)])
    first = draw_parts(images[::2], {}, 0, DEFAULT_FRACTIONS)
    both = draw_parts(images, first, 1, DEFAULT_FRACTIONS)
    for image, other in zip(images[::2], images[1::2], strict=True):
        assert both[other.content_hash] == first[image.content_hash]


def in_pairs(members: list[ContentLabel], reason: str = "look-alike") -> list[ContentLabel]:
    return [replace(image, group=f"g{row // 2}", reason=reason) for row, image in enumerate(members)]


def as_of_old(record: Path) -> None:
    """Take away what records of before there were groups did not have."""
    lines = [line.split(",")[:4] for line in record.read_text().splitlines()]
    record.write_text("".join(",".join(cells) + "\n" for cells in lines))


def test_the_record_says_group_and_reason(tmp_path: Path) -> None:
    record = tmp_path / "split.csv"
    members = in_pairs(images("a", 6), "patient") + images("b", 3)
    parts = split_images(members, record, seed=1)
    assert record.read_text().splitlines()[0] == "sha256,path,label,split,group,reason"
    assert {tuple(line.split(",")[4:]) for line in record.read_text().splitlines()[1:]} == {
        *((f"g{number}", "patient") for number in range(3)), ("", "seed")
    }  # fmt: skip
    assert read_split(record) == {image.content_hash: (image, parts[image.content_hash]) for image in members}
    assert leak_of(read_split(record).values()).line("split.csv") is None


def test_a_record_of_before_groups_goes_on_and_says_what_is_wrong(tmp_path: Path) -> None:
    record = tmp_path / "split.csv"
    parts = split_images(images("a", 60), record, seed=1)
    as_of_old(record)
    for _ in range(2):
        assert split_images(in_pairs(images("a", 60)), record, seed=2) == parts
        leak = leak_of(read_split(record).values())
        assert leak.by_file
        assert (leak.tests, leak.validations) == (12, 6)
        expected = sum(
            parts[image.content_hash] == "test"
            and "train" in (parts[first.content_hash], parts[second.content_hash])
            for first, second in zip(images("a", 60)[::2], images("a", 60)[1::2], strict=True)
            for image in (first, second)
        )
        assert leak.test == expected > 0
        line = leak.line("split.csv")
        assert line is not None
        assert line.startswith(f"split.csv was drawn by file: {leak.test} of 12 test and ")
        assert "delete split.csv to draw a new split by group" in line
    grown = split_images(in_pairs(images("a", 80)), record, seed=3)
    assert parts.items() <= grown.items()
    assert {image.reason for image, _ in read_split(record).values()} == {"file", "look-alike"}
    record.unlink()
    split_images(in_pairs(images("a", 60)), record, seed=1)
    assert leak_of(read_split(record).values()).line("split.csv") is None


def test_groups_that_change_move_nothing(tmp_path: Path) -> None:
    record = tmp_path / "split.csv"
    members = images("a", 40)
    parts = split_images(in_pairs(members), record, seed=1)
    shifted = in_pairs(members[1:] + members[:1], "groups file")
    assert split_images(shifted, record, seed=1) == parts
    recorded = read_split(record)
    assert {image.group for image, _ in recorded.values()} == {image.group for image in shifted}
    assert {image.reason for image, _ in recorded.values()} == {"look-alike"}
    line = leak_of(recorded.values()).line("split.csv")
    assert line is not None
    assert line.startswith("split.csv was drawn before these groups were known: ")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 8)), min_size=1, max_size=40), st.integers(0, 9)
)
def test_no_draw_tests_on_a_group_that_it_trains_on(members: list[tuple[str, int]], seed: int) -> None:
    grouped = [
        ContentLabel(label, str(row), hashlib.sha256(bytes([row])).digest(), f"g{group}" if group else "")
        for row, (label, group) in enumerate(members)
    ]
    parts = draw_parts(grouped, {}, seed, DEFAULT_FRACTIONS)
    leak = leak_of((image, parts[image.content_hash]) for image in grouped)
    assert (leak.test, leak.validation) == (0, 0)
    # A later image of a group joins it, so nothing leaks afterwards either.
    first = grouped[: len(grouped) // 2]
    recorded = draw_parts(first, {}, seed, DEFAULT_FRACTIONS)
    parts = draw_parts(grouped, recorded, seed, DEFAULT_FRACTIONS)
    assert leak_of((image, parts[image.content_hash]) for image in grouped).test == 0
