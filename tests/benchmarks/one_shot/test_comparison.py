"""Statistics arrive as they were sent, within the budget; the comparison fills one table of all rows."""

import sys

import msgspec
import numpy as np
import pytest

from benchmarks.one_shot import comparison
from benchmarks.one_shot.budget import settings_within
from benchmarks.one_shot.contenders import PEERS
from benchmarks.one_shot.transmission import FLOAT_BITS, Setting, random_directions, send
from fedmedclip.simulation.accuracy import significance

pytestmark = pytest.mark.slow

SIZE, CLASSES = 24, 3


@pytest.fixture
def site():
    """Unit embeddings of a site, float64, turned at random, and their labels."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, CLASSES, 80)
    embeddings = 0.1 * draw.normal(size=(80, SIZE)) + np.eye(SIZE)[labels]
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings @ random_directions(SIZE, SIZE, seed=1), labels


def statistics_of(peer, site, parts=1):
    return peer.of_site(*site, CLASSES, parts)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_float32_brings_everything(peer, site):
    statistics = statistics_of(peer, site)
    arrived = send(statistics, Setting(), 80).statistics
    for name, array in statistics.arrays.items():
        np.testing.assert_array_equal(arrived.arrays[name], array.astype(np.float32))
    if statistics.counts is not None:
        assert arrived.counts.tolist() == statistics.counts.tolist()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("setting", [Setting(4), Setting(8), Setting(8, rank=CLASSES)])
def test_few_bits_bring_it_nearly(peer, site, setting):
    statistics = statistics_of(peer, site)
    sent = send(statistics, setting, 80)
    for name, array in statistics.arrays.items():
        left_out = np.linalg.norm(sent.statistics.arrays[name] - array) / np.linalg.norm(array)
        assert left_out < (0.2 if setting.bits == 4 else 0.1)
    assert sent.size < send(statistics, Setting(FLOAT_BITS), 80).size / 2


def test_a_low_rank_keeps_the_trace(site):
    statistics = statistics_of(PEERS[1], site)
    matrix = send(statistics, Setting(FLOAT_BITS, rank=4), 80).statistics.arrays["A"]
    assert np.trace(matrix) == pytest.approx(80, rel=1e-5)
    values = np.linalg.eigvalsh(matrix)
    exact = np.linalg.eigvalsh(statistics.arrays["A"])
    np.testing.assert_allclose(values[-4:], exact[-4:], rtol=1e-4)
    np.testing.assert_allclose(values[:-4], exact[:-4].mean(), rtol=1e-3)


def test_all_sites_draw_the_same_orthonormal_directions():
    directions = random_directions(SIZE, 5, seed=3)
    np.testing.assert_allclose(directions.T @ directions, np.eye(5), atol=1e-12)
    assert (directions == random_directions(SIZE, 5, seed=3)).all()
    assert (directions != random_directions(SIZE, 5, seed=4)).any()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_settings_are_the_largest_that_fit(peer, site):
    embeddings, labels = site

    def size(setting):
        seen = embeddings
        if setting.directions is not None:
            seen = embeddings @ random_directions(SIZE, setting.directions, seed=0)
        return send(peer.of_site(seen, labels, CLASSES, setting.parts), setting, 80).size

    settings = settings_within(260, peer, SIZE, size)
    assert {setting.bits for setting in settings} == {4, 8}
    for setting in settings:
        assert size(setting) <= 260
        for name in ("directions", "rank"):
            number = getattr(setting, name)
            if number is not None and number < SIZE:
                assert size(msgspec.structs.replace(setting, **{name: number + 1})) > 260
    assert settings_within(60, peer, SIZE, size) == []
    assert settings_within(None, peer, SIZE, size) == [Setting()]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A file with the embeddings of three hospitals, and of images of none."""
    draw = np.random.default_rng(0)
    captions = np.linalg.qr(draw.normal(size=(SIZE, CLASSES)))[0].T.astype(np.float32)
    labels = np.arange(300) % CLASSES

    def embeddings(of):
        return (captions[of] + 0.3 * draw.normal(size=(len(of), SIZE))).astype(np.float32)

    path = tmp_path_factory.mktemp("one-shot") / "features.npz"
    np.savez(
        path, embeddings=embeddings(labels), labels=labels, sites=np.arange(300) // 100,
        class_embeddings=captions, logit_scale=10.0, global_embeddings=embeddings(labels[:30]),
        global_labels=labels[:30],
    )  # fmt: skip
    return path


def run(monkeypatch, *options):
    monkeypatch.setattr(significance, "RESAMPLES", 500)
    monkeypatch.setattr(sys, "argv", ["comparison", *map(str, options)])
    comparison.main()


def test_the_comparison_has_all_rows_in_one_table_and_goes_on(features, tmp_path, monkeypatch, capsys):
    options = ["--features", features, "--out", tmp_path, "--seeds", 0, "--labels", "2,all"]
    options += ["--budgets", 400, "--ours", "whitened-memory@1@int8"]
    run(monkeypatch, *options)
    content = msgspec.json.decode((tmp_path / "one-shot.json").read_bytes())
    rows = {row["contender"]: row for row in content["rows"]}
    assert content["reference"] == "whitened-memory, 1 round, int8"
    names = [peer.name for peer in PEERS]
    assert list(rows) == [
        "zero-shot", content["reference"], *(f"{name}, 400 bytes" for name in names),
        *(f"{name}, float32" for name in names),
    ]  # fmt: skip
    columns = ["members' own test", "left out, 2 labels", "global test"]
    for name, row in rows.items():
        assert list(row["cells"]) == columns
        assert (0 < row["uplink_bytes"] <= 400) or "400 bytes" not in name
        assert all(
            cell["runs"] == (1 if column == "global test" else 3) for column, cell in row["cells"].items()
        )
        # Three classes: each row has learnt something.
        assert all(cell["accuracy"] > 0.6 for cell in row["cells"].values()), (name, row)
        assert all(
            (cell["comparison"] is None) == (name == content["reference"]) for cell in row["cells"].values()
        )
    written = (tmp_path / "one-shot.md").read_text()
    assert "| FedCOF, 400 bytes |" in written
    kept = (tmp_path / "runs.jsonl").read_bytes()
    run(monkeypatch, *options)
    assert (tmp_path / "runs.jsonl").read_bytes() == kept
    assert "runs are done already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--ours", "fedmedclip", "give fedmedclip@30@lowrank"),
        ("--ours", "fedmedclib@1@lowrank", "fedmedclib"),
        ("--budgets", "900,many", "give bytes"),
        ("--budgets", "80", "give a larger budget"),
        ("--against", "nobody", "there are: zero-shot"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(features, tmp_path, monkeypatch, option, value, said):
    options = {"--ours": "whitened-memory@1@int8", "--budgets": "400", option: value}
    pairs = [word for pair in options.items() for word in pair]
    with pytest.raises(SystemExit, match=said):
        run(monkeypatch, "--features", features, "--out", tmp_path, "--seeds", "0", *pairs)
