"""What one update tells of the images that it was made of: membership and reconstruction, measured.

    python -m benchmarks.leakage --data FOLDER --bundle BUNDLE --out leakage

A site of so many images, drawn from one hospital, makes its first update of a run; somebody who reads it on
its way (the centre, the broker) attacks it (`benchmarks.privacy.attacks`). Candidates are all images of that
hospital. Every method, size and codec, without floors and with the default ones. Writes `leakage.json` and
`leakage.md` into the folder.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.privacy.trial import Found, Trial
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.source import Source, load_features

METHODS = "fedmedclip,facmic,fedclip,linear-probe,whitened-memory"
SIZES = "each,2,8,16,32,48,64,128,358,rare"
CODECS = "lossless,int8,lowrank"
_ONE_BATCH = 65_536
_RARE_SITE = 100


class Row(msgspec.Struct, frozen=True):
    """The mean over the draws, as `Found` has it; without figures where nothing is sent.

    `site` is the number of its images, drawn at random; or `each`, one of each class; or `rare`, 100 of which
    one alone is of its class.
    """

    method: str
    batch: str
    site: str
    codec: str
    floors: bool
    membership: float | None = None
    attack: str | None = None
    named: float | None = None
    cosine: float | None = None


def main() -> None:
    """Measure all rows and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of sites")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle that encodes the images")
    parser.add_argument("--out", type=Path, required=True, help="folder of results and features")
    parser.add_argument("--hospital", default="hospital_2", help="whose images site and candidates are of")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--codecs", default=CODECS)
    parser.add_argument("--draws", type=int, default=5, help="sites of each size")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    source = Source(arguments.data, arguments.bundle)
    pool = load_features(source, arguments.out, console, reference=False).pool
    candidates = np.flatnonzero(pool.sites == pool.site_names.index(arguments.hospital))
    rows: list[Row] = []
    for method in arguments.methods.split(","):
        for row in _rows(pool, candidates, method, arguments):
            rows.append(row)
            console.print(f"{row.method} {row.batch} {row.site} {row.codec} floors {row.floors}: {row}")
    document = {
        "candidates": len(candidates),
        "draws": arguments.draws,
        "embedding_size": pool.embedding_size,
        "rows": rows,
    }
    encoded = msgspec.json.format(msgspec.json.encode(document), indent=1)
    (arguments.out / "leakage.json").write_bytes(encoded + b"\n")
    (arguments.out / "leakage.md").write_text(_tables(rows), encoding="utf-8")


def _rows(
    pool: FeaturePool, candidates: npt.NDArray[np.int64], method: str, arguments: argparse.Namespace
) -> Iterator[Row]:
    plans = [("default", TrainingSettings())]
    if method != "whitened-memory":
        plans.append(("whole", TrainingSettings(batch_size=_ONE_BATCH)))
    codecs = arguments.codecs.split(",")
    for batch, settings in plans:
        for site in arguments.sizes.split(","):
            for floors in (NO_FLOORS, DEFAULT_FLOORS):
                trial = Trial(pool, method, settings, floors)
                found: dict[str, list[Found]] = {codec: [] for codec in codecs}
                for draw in range(arguments.draws):
                    members = _members(pool, candidates, site, draw)
                    for codec, observed in trial.observe(members, draw, codecs).items():
                        found[codec].append(trial.attack(observed, members, candidates))
                for codec, of_codec in found.items():
                    yield _row(Row(method, batch, site, codec, floors is not NO_FLOORS), of_codec)


def _members(
    pool: FeaturePool, candidates: npt.NDArray[np.int64], site: str, draw: int
) -> npt.NDArray[np.int64]:
    chance = np.random.default_rng(draw)
    mixed = chance.permutation(candidates)
    if site.isdigit():
        return mixed[: int(site)]
    labels = pool.labels[mixed]
    firsts = [mixed[labels == label][0] for label in np.unique(labels)]
    if site == "each":
        return np.array(firsts)
    alone = int(chance.choice(np.unique(labels)))
    others = mixed[labels != alone][: _RARE_SITE - 1]
    return np.concatenate([others, [mixed[labels == alone][0]]])


def _row(row: Row, found: list[Found]) -> Row:
    """Fill in the means; of the attacks the one that is best on average."""
    if not found:
        return row
    attacks = {name: float(np.mean([one.membership[name] for one in found])) for name in found[0].membership}
    best = max(attacks, key=lambda name: attacks[name])
    return msgspec.structs.replace(
        row,
        membership=round(attacks[best], 3),
        attack=best,
        named=round(float(np.mean([one.named for one in found])), 3),
        cosine=round(float(np.mean([one.cosine for one in found])), 3),
    )


def _tables(rows: list[Row]) -> str:
    """Return a table for each method and batch: a line for each site, a column for each codec."""
    lines: list[str] = []
    for method, batch in dict.fromkeys((row.method, row.batch) for row in rows):
        chosen = [row for row in rows if (row.method, row.batch) == (method, batch)]
        codecs = list(dict.fromkeys(row.codec for row in chosen))
        title = method if batch == "default" else f"{method}, the whole site in one batch"
        lines += [f"### {title}", "", f"| images | {' | '.join(codecs)} | with floors |"]
        lines.append("|---" * (len(codecs) + 2) + "|")
        for site in dict.fromkeys(row.site for row in chosen):
            of_site = {(row.codec, row.floors): row for row in chosen if row.site == site}
            cells = [_cell(of_site[codec, False]) for codec in codecs]
            with_floors = [_cell(of_site[codec, True]) for codec in codecs]
            after = "nothing is sent" if set(with_floors) == {"-"} else "; ".join(with_floors)
            lines.append(
                f"| {site} | {' | '.join(cells)} | {'the same' if with_floors == cells else after} |"
            )
        lines.append("")
    return "\n".join(lines)


def _cell(row: Row) -> str:
    if row.membership is None:
        return "-"
    if row.method != "whitened-memory":
        return f"{row.membership:.2f}"
    return f"{row.membership:.2f}, {row.named:.2f}, {row.cosine:.2f}"


if __name__ == "__main__":
    main()
