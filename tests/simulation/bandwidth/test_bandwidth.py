"""The bandwidth benchmark as a person runs it, and what its numbers mean."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

import fedmedclip.simulation.federation.federation as federation
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.simulation.bandwidth.benchmark import BandwidthSettings, run_bandwidth
from fedmedclip.simulation.bandwidth.results import Row, compare
from fedmedclip.simulation.bandwidth.runs import CodecTrial, codec_choices, play_codec, run_federation
from fedmedclip.simulation.bandwidth.thin_link import ThinLink, parse_link
from fedmedclip.simulation.federation.coders import WholeHeadCoder, codecs_of
from fedmedclip.simulation.federation.dealing import Dealing
from fedmedclip.simulation.federation.experiment import Experiment
from fedmedclip.simulation.federation.feature_pool import pool_of_file
from fedmedclip.simulation.federation.source import Source
from tests import ROOT
from tests.edge_client.conftest import CLASS_NAMES, write_image, write_tiny_bundle

KEYS = {
    "codec", "uplink_bytes_per_round", "downlink_bytes_per_round", "total_bytes_per_site", "accuracy",
    "accuracy_std", "rounds_to_target", "encode_ms", "decode_ms", "entropy_limit_bytes", "seconds_on_link",
}  # fmt: skip
TIMES = {"encode_ms", "decode_ms"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle, and a folder of three sites with 8 images of each class and a global test."""
    root = tmp_path_factory.mktemp("bandwidth")
    write_tiny_bundle(root / "bundle")
    seed = 0
    for site in ("a", "b", "c", "global_test"):
        for name in CLASS_NAMES:
            for number in range(8):
                seed += 1
                write_image(root / "data" / site / name / f"{number}.png", seed=seed)
    return root


def run(folder, out, **changes):
    settings = BandwidthSettings(
        **{
            "out": out, "codecs": "lossless,int8", "seeds": "0,1",
            "source": Source(folder / "data", folder / "bundle"), "rounds": 2, "floors": False, **changes,
        }
    )  # fmt: skip
    console = Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    run_bandwidth(settings, console)
    return json.loads((out / "bandwidth.json").read_text()), console.export_text()


def without_times(content):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in content["rows"]]


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, *run(folder, out)


def trial(pool, **changes):
    experiment = Experiment(**{"method": "fedmedclip", "rounds": 3, "floors": NO_FLOORS, **changes})
    return CodecTrial(pool, experiment)


def test_it_writes_a_row_per_codec_curves_plots_and_a_sentence(finished):
    out, content, text = finished
    assert [row["codec"] for row in content["rows"]] == ["lossless", "int8"]
    for row in content["rows"]:
        assert set(row) == KEYS | {"accuracy_global"}
        assert 0 <= row["accuracy"] <= 1
        assert row["total_bytes_per_site"] == pytest.approx(
            2 * (row["uplink_bytes_per_round"] + row["downlink_bytes_per_round"])
        )
    assert content["comparison"]["sentence"] in " ".join(text.split())
    assert "image encoder" in content["comparison"]["sentence"]
    nothing = {"mean": 0.0, "std": 0.0, "low": 0.0, "high": 0.0}
    assert content["accuracy_less_uncompressed"]["lossless"] == nothing
    assert set(content["accuracy_global_less_uncompressed"]) == {"lossless", "int8"}
    assert "Points less lossless" in text
    assert "95 % interval" in text
    curves = list(csv.DictReader((out / "curves.csv").open()))
    assert len(curves) == 2 * 2 * 2
    for name in ("accuracy-against-bytes", "learning-curves"):
        assert (out / f"{name}.svg").read_text().startswith("<?xml")
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("federation-*"))


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers(finished, folder, tmp_path):
    content, _ = run(folder, tmp_path)
    assert without_times(content) == without_times(finished[1])
    assert content["details"] == finished[1]["details"]


@pytest.mark.slow
def test_finished_runs_are_not_run_again(finished, folder, monkeypatch):
    out, content, _ = finished

    def fail(*_):
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr("fedmedclip.simulation.bandwidth.benchmark.run_federation", fail)
    again, text = run(folder, out)
    assert again == content
    assert "4 of 4 runs are done already" in text


@pytest.mark.slow
def test_an_interrupted_benchmark_goes_on_where_it_was(folder, tmp_path, finished, monkeypatch):
    done = []

    def interrupted(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments[1])
        return run_federation(*arguments)

    monkeypatch.setattr("fedmedclip.simulation.bandwidth.benchmark.run_federation", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path)
    monkeypatch.undo()
    with (tmp_path / "runs.jsonl").open("ab") as file:
        file.write(b'{"codec": "int8", "se')
    content, text = run(folder, tmp_path)
    assert "2 of 4 runs are done already" in text
    assert without_times(content) == without_times(finished[1])


def test_runs_of_another_benchmark_are_not_mixed_in(finished, folder):
    with pytest.raises(InvalidInputError, match="another rounds"):
        run(folder, finished[0], rounds=3)


def test_large_heads_are_counted_with_their_blocks(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(federation, "SMALLEST_COMMON_LIMIT", 1280)
    found = run_federation(trial(pool), "lossless", 0, tmp_path, lambda: None)
    whole = run_federation(trial(pool, rounds=1), "lossless", 0, tmp_path, lambda: None)
    assert min(found.uplink_by_message["Block"], found.downlink_by_message["Block"]) > 3 * 2000
    assert found.rounds[0].accuracy == whole.rounds[0].accuracy


def test_who_was_away_asks_for_what_it_missed(pool, tmp_path):
    setting = trial(pool, dealing=Dealing(60, 5.0), sites_per_round=2, rounds=6)
    found = run_federation(setting, "int8", 0, tmp_path, lambda: None)
    dealt = setting.experiment.dealing.deal(pool, 0)
    chosen = {site.name for n in range(1, 7) for site in dealt.participants(2, 0, n)}
    assert found.sites_reached == len(chosen) > 4
    assert found.uplink_by_message["HeadRequest"] > 0


def test_lossless_whole_heads_learn_what_lossless_deltas_do(pool, tmp_path):
    """Local training, participation, weights: the same; only what travels differs."""
    setting = trial(pool)
    ours = run_federation(setting, "lossless", 0, tmp_path, lambda: None)
    coder = WholeHeadCoder("lossless", "lossless", shared_head_specification("fedmedclip", 16))
    theirs = play_codec(setting, "whole", 0, tmp_path, lambda: None, coder)
    assert [entry.accuracy for entry in theirs.rounds] == pytest.approx(
        [entry.accuracy for entry in ours.rounds], abs=0.02
    )
    assert set(theirs.uplink_by_message) == set(ours.uplink_by_message)
    assert set(theirs.downlink_by_message) == set(ours.downlink_by_message)
    assert [entry.exchanges for entry in theirs.rounds] == [entry.exchanges for entry in ours.rounds]


def test_whole_heads_reach_sites_that_come_and_go(pool, tmp_path):
    setting = trial(pool, dealing=Dealing(8, 5.0), sites_per_round=2, rounds=4)
    found = run_federation(setting, "paper-fp16-zlib", 0, tmp_path, lambda: None)
    assert set(found.uplink_by_message) == {"Join", "Status", "Update"}
    assert [entry.participants for entry in found.rounds] == [2, 2, 2, 2]


def test_the_papers_compression_sends_whole_heads_in_half_precision(pool, tmp_path):
    setting = trial(pool)
    found = run_federation(setting, "paper-fp16-zlib", 0, tmp_path, lambda: None)
    values = shared_head_specification("fedmedclip", 16).size
    assert 1.5 * values < found.payload_bytes < 2.2 * values
    assert found.uplink_by_message["Update"] > 9 * found.payload_bytes
    assert found.downlink_by_message["Announcement"] > 9 * found.payload_bytes
    with pytest.raises(InvalidInputError, match="give two of a kind"):
        codecs_of("paper-fp16-zlib/int8")


def test_two_directions_may_have_two_codecs(pool, tmp_path):
    found = run_federation(trial(pool), "int8/lossless", 0, tmp_path, lambda: None)
    assert found.downlink_by_message["Announcement"] > 1.5 * found.uplink_by_message["Update"]


def test_commas_also_stand_between_a_codecs_own_parameters():
    labels = codec_choices("int8, lowrank:rank=8,bits=4 ,sign/int8,int8")
    assert labels == ["int8", "lowrank:rank=8,bits=4", "sign/int8"]


def test_the_link_formula():
    link = parse_link("64kbit/s", "600ms")
    assert link == ThinLink(64_000, 0.6)
    assert link.seconds(8000, 2) == pytest.approx(1.0 + 1.2)
    assert parse_link("1.5Mbit/s", "0 s") == ThinLink(1_500_000, 0)


@pytest.mark.parametrize("rate", ["64", "64kB/s", "0kbit/s", "-1kbit/s", "", "fast", "1e3kbit/s"])
def test_rates_that_make_no_sense(rate):
    with pytest.raises(InvalidInputError, match="64kbit/s"):
        parse_link(rate, "1s")


@pytest.mark.parametrize("rtt", ["600", "ms", "1min", "-5ms"])
def test_round_trips_that_make_no_sense(rtt):
    with pytest.raises(InvalidInputError, match="600ms"):
        parse_link("1kbit/s", rtt)


def row(codec, size, accuracy):
    return Row(codec, size, size, 2 * size, accuracy, 0.0, 1, 1.0, 1.0, size, 1.0)


def test_the_sentence_compares_with_the_papers_and_with_the_whole_model():
    rows = [row("lossless", 1e6, 0.9), row("paper-fp16-zlib", 5e5, 0.9), row("sign", 100, 0.8)]
    found = compare([*rows, row("lowrank", 1000, 0.9)], 10_000_000)
    assert (found.codec, found.fewer_than_papers, found.fewer_than_full_model) == ("lowrank", 500, 10_000)
    assert "500 times fewer bytes than the papers' compression" in found.sentence
    # Without the default codec: the fewest bytes, but not at any price.
    assert compare(rows, None).codec == "paper-fp16-zlib"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codecs": "int8,zip"}, "unknown codec 'zip'"),
        ({"codecs": " , "}, "--codecs is empty"),
        ({"link": "fast"}, "--link 'fast'"),
        ({"rtt": "600"}, "--rtt '600'"),
        ({"sites": 0}, "--sites is 0"),
        ({"sites_per_round": 0}, "--sites-per-round is 0"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"seeds": "one"}, "--seeds 'one'"),
        ({"seeds": "-1"}, "whole numbers from 0"),
        ({"target": 84.0}, "between 0 and 1"),
        ({"source": Source(bundle=ROOT)}, "--data with --bundle, or --features"),
        ({"method": "fedmedclap"}, "unknown method"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(folder, tmp_path, changes, words):
    with pytest.raises(InvalidInputError, match=words):
        run(folder, tmp_path / "out", **changes)


def test_wrong_features_are_refused(tmp_path):
    path = tmp_path / "features.npz"
    path.write_bytes(b"not a zip")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        pool_of_file(path)
    np.savez(path, embeddings=np.zeros((3, 4), np.float32))
    with pytest.raises(InvalidInputError, match="lack the arrays labels"):
        pool_of_file(path)
    arrays = {
        "embeddings": np.ones((3, 4), np.float32), "labels": np.array([0, 1, 2]), "sites": np.zeros(3, int),
        "class_embeddings": np.ones((2, 4), np.float32), "logit_scale": 1.0,
    }  # fmt: skip
    np.savez(path, **arrays)
    with pytest.raises(InvalidInputError, match="labels must be from 0 to 1"):
        pool_of_file(path)


def test_the_command_line_says_one_line_and_code_2(folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fedmedclip", "bench", "bandwidth", "--data", str(folder / "data"), "--bundle",
         str(folder / "bundle"), "--link", "64 kilobit", "--out", str(tmp_path / "out")],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--link '64 kilobit'" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
