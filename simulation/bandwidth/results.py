"""From runs to figures: one row per codec, learning curves, and the comparison that matters."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import msgspec

from fedmedclip.protocol.new_files import new_text_file
from fedmedclip.simulation.bandwidth.runs import Round, Run
from fedmedclip.simulation.bandwidth.thin_link import ThinLink

UNCOMPRESSED = "lossless"
PAPERS = "paper-fp16-zlib"
DEFAULT = "lowrank"
TOLERANCE = 0.005
_LAST_ROUNDS = 5


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One codec's figures, means over the seeds.

    Bytes are MQTT payload bytes per site that takes part in a round; `total_bytes_per_site` are those of both
    directions and all rounds, per site that took part in any. `accuracy` (0 to 1) is the shared head's over
    all sites' test images together, `accuracy_global` over images of no site, both the mean of the last 5
    rounds; `accuracy_std` is the standard deviation between seeds (0 with one). `rounds_to_target` is the
    first round whose mean accuracy reaches the target, None: never. `entropy_limit_bytes` is what an ideal
    order-0 coder would make of an update's symbols, to be held against the update without its envelope.
    `seconds_on_link`: see `ThinLink.seconds`.
    """

    codec: str
    uplink_bytes_per_round: float
    downlink_bytes_per_round: float
    total_bytes_per_site: float
    accuracy: float
    accuracy_std: float
    rounds_to_target: int | None
    encode_ms: float
    decode_ms: float
    entropy_limit_bytes: float
    seconds_on_link: float
    accuracy_global: float | None = None

    @property
    def bytes_per_round(self) -> float:
        """Both directions."""
        return self.uplink_bytes_per_round + self.downlink_bytes_per_round


class Comparison(msgspec.Struct, frozen=True):
    """How many times fewer bytes per round and site than something else, and at what cost in accuracy."""

    codec: str
    fewer_than_papers: float | None
    fewer_than_full_model: float | None
    accuracy: float
    accuracy_uncompressed: float | None
    accuracy_papers: float | None
    sentence: str


def make_rows(runs: Mapping[str, Sequence[Run]], link: ThinLink, target: float) -> list[Row]:
    """Return a row for each codec's runs (one per seed), in the order given."""
    return [_row(codec, list(of_seeds), link, target) for codec, of_seeds in runs.items()]


def target_accuracy(runs: Mapping[str, Sequence[Run]], given: float | None) -> tuple[float, str]:
    """Return the accuracy that `rounds_to_target` waits for, and where it comes from."""
    if given is not None:
        return given, "given"
    finals = {codec: fmean(map(final_accuracy, of_seeds)) for codec, of_seeds in runs.items()}
    reference = UNCOMPRESSED if UNCOMPRESSED in finals else max(finals, key=lambda codec: finals[codec])
    return finals[reference] - TOLERANCE, f"{reference} less {100 * TOLERANCE:g} points"


def mean_curve(runs: Sequence[Run]) -> list[float]:
    """Return the mean accuracy of each round over the seeds."""
    return [fmean(values) for values in zip(*(_curve(run) for run in runs), strict=True)]


def compare(rows: Sequence[Row], full_model_bytes: int | None) -> Comparison:
    """Hold the codec that a reader asks for first against the papers' compression and full-model averaging.

    That codec is the default one; where it did not run, the one with the fewest bytes among those within
    half a point of the uncompressed accuracy. Full-model averaging sends the model once in each direction.
    """
    by_codec = {row.codec: row for row in rows}
    uncompressed, papers = by_codec.get(UNCOMPRESSED), by_codec.get(PAPERS)
    floor = (uncompressed or max(rows, key=lambda row: row.accuracy)).accuracy - TOLERANCE
    good = [row for row in rows if row.accuracy >= floor]
    chosen = by_codec.get(DEFAULT) or min(good, key=lambda row: row.bytes_per_round)
    fewer_than_papers = None if papers is None else papers.bytes_per_round / chosen.bytes_per_round
    fewer_than_full = None if full_model_bytes is None else 2 * full_model_bytes / chosen.bytes_per_round
    against = []
    if papers is not None and papers is not chosen:
        against.append(
            f"{fewer_than_papers:,.0f} times fewer bytes than the papers' compression "
            f"({papers.bytes_per_round:,.0f} bytes)"
        )
    if full_model_bytes is not None:
        against.append(
            f"{fewer_than_full:,.0f} times fewer than averaging the whole image encoder in fp32 "
            f"({2 * full_model_bytes:,.0f} bytes; its text tower not counted)"
        )
    accuracies = [f"accuracy {100 * chosen.accuracy:.1f}"]
    if uncompressed is not None and uncompressed is not chosen:
        accuracies.append(f"{100 * uncompressed.accuracy:.1f} without loss")
    if papers is not None and papers is not chosen:
        accuracies.append(f"{100 * papers.accuracy:.1f} with the papers' compression")
    begins = f"{chosen.codec}: {chosen.bytes_per_round:,.0f} bytes per site and round, up and down together"
    return Comparison(
        chosen.codec,
        fewer_than_papers,
        fewer_than_full,
        chosen.accuracy,
        None if uncompressed is None else uncompressed.accuracy,
        None if papers is None else papers.accuracy,
        ", ".join([begins, *against]) + "; " + ", ".join(accuracies) + ".",
    )


def breakdown(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the bytes of a codec's runs consist of, per site that takes part in a round."""
    turns = sum(_turns(run) for run in runs)
    of_message = {
        direction: {
            name: round(sum(getattr(run, field).get(name, 0) for run in runs) / turns, 1)
            for name in sorted({name for run in runs for name in getattr(run, field)})
        }
        for direction, field in (("uplink", "uplink_by_message"), ("downlink", "downlink_by_message"))
    }
    return {
        "message_bytes": of_message,
        "update_payload_bytes": round(fmean(run.payload_bytes for run in runs), 1),
        "exchanges": round(sum(entry.exchanges for run in runs for entry in run.rounds) / turns, 2),
        "sites_reached": round(fmean(run.sites_reached for run in runs), 1),
        "head_digests": {str(run.seed): run.head_digest for run in runs},
    }


def write_curves(path: Path, runs: Mapping[str, Sequence[Run]]) -> None:
    """Write every round of every run as CSV."""
    columns = ("codec", "seed", "round", *Round.__struct_fields__)
    with new_text_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for codec, of_seeds in runs.items():
            for run in of_seeds:
                for number, entry in enumerate(run.rounds, start=1):
                    writer.writerow([codec, run.seed, number, *msgspec.structs.astuple(entry)])


def _row(codec: str, runs: list[Run], link: ThinLink, target: float) -> Row:
    turns = sum(_turns(run) for run in runs)
    uplink = sum(entry.uplink_bytes for run in runs for entry in run.rounds)
    downlink = sum(entry.downlink_bytes for run in runs for entry in run.rounds)
    exchanges = sum(entry.exchanges for run in runs for entry in run.rounds) / turns
    finals = [final_accuracy(run) for run in runs]
    curve = mean_curve(runs)
    reached = (number for number, value in enumerate(curve, start=1) if value >= target)
    return Row(
        codec,
        uplink / turns,
        downlink / turns,
        (uplink + downlink) / sum(run.sites_reached for run in runs),
        fmean(finals),
        stdev(finals) if len(finals) > 1 else 0.0,
        next(reached, None),
        fmean(run.encode_ms for run in runs),
        fmean(run.decode_ms for run in runs),
        fmean(run.entropy_limit_bytes for run in runs),
        link.seconds((uplink + downlink) / turns, exchanges),
        _final_global(runs),
    )


def _turns(run: Run) -> int:
    return sum(entry.participants for entry in run.rounds)


def _curve(run: Run) -> list[float]:
    return [entry.accuracy for entry in run.rounds]


def final_accuracy(run: Run) -> float:
    """Return the mean accuracy of the last rounds, 0 to 1."""
    return fmean(_curve(run)[-_LAST_ROUNDS:])


def final_accuracy_global(run: Run) -> float | None:
    """Return the same on images of no site, None without such."""
    values = [entry.accuracy_global for entry in run.rounds[-_LAST_ROUNDS:]]
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _final_global(runs: Sequence[Run]) -> float | None:
    known = [value for value in map(final_accuracy_global, runs) if value is not None]
    return fmean(known) if known else None
