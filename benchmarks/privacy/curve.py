"""What exact privacy costs a newcomer: accuracy against epsilon.

    python -m benchmarks.privacy.curve --data FOLDER --bundle BUNDLE --out privacy
    python -m benchmarks.privacy.curve --out privacy                 # the phantoms

Each hospital in turn is the newcomer, with so many labels of each class or none; the others tell their
statistics, each with noise of its own for every epsilon, or exactly. Then the images are dealt out again
among ten sites, and the noise is added once for all of them, as under secure aggregation. Splits keep groups
whole. The public reference set is the folder's `server_reference`, without its labels. Writes `privacy.json`
and `privacy.md` into the folder.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console

from benchmarks.privacy.federation import Federation, Privacy
from fedmedclip.edge_client.privacy.public_space import space_of
from fedmedclip.edge_client.privacy.units import Unit
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.folder import SERVER_REFERENCE
from fedmedclip.simulation.federation.source import Source, load_features

DELTA = 1e-5
EPSILONS = "0,0.5,1,2,4,8,16"
"""With 0 nothing is sent: the newcomer has what is public."""
_LEAST_TEST_IMAGES = 10


class Row(msgspec.Struct, frozen=True):
    """Mean accuracy of newcomers over sites, seeds and draws of the noise.

    `epsilon` is None without privacy, 0 where no site sends anything and the newcomer has what is public.

    `sites` is `natural`, or how many the images were dealt out among; `secure` whether the noise is added
    once for all.
    """

    sites: str
    unit: Unit
    secure: bool
    labels: int
    epsilon: float | None
    accuracy: float
    zero_shot: float


def main() -> None:
    """Measure all rows and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of sites")
    parser.add_argument("--bundle", type=Path, help="bundle that encodes the images")
    parser.add_argument("--out", type=Path, required=True, help="folder of results and features")
    parser.add_argument("--epsilons", default=EPSILONS)
    parser.add_argument("--labels", default="0,4", help="of each class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=3, help="of the noise, for each seed and newcomer")
    parser.add_argument("--sites", type=int, default=10, help="among which the images are dealt out again")
    parser.add_argument("--images-per-patient", type=int, default=4)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    features = load_features(Source(arguments.data, arguments.bundle), arguments.out, console)
    if SERVER_REFERENCE not in features.unlabelled:
        raise InvalidInputError(f"data {arguments.data} has no {SERVER_REFERENCE} of public images; add one")
    pool = features.pool
    space = space_of(features.unlabelled[SERVER_REFERENCE], pool.class_embeddings, pool.logit_scale)
    rows: list[Row] = []
    for row in _rows(Federation(pool, space), arguments):
        rows.append(row)
        console.print(str(row), highlight=False)
    document = {
        "delta": DELTA,
        "directions": space.directions.shape[1],
        "embedding_size": pool.embedding_size,
        "images_per_patient": arguments.images_per_patient,
        "rows": rows,
    }
    encoded = msgspec.json.format(msgspec.json.encode(document), indent=1)
    (arguments.out / "privacy.json").write_bytes(encoded + b"\n")
    (arguments.out / "privacy.md").write_text(_tables(rows), encoding="utf-8")


def _rows(federation: Federation, arguments: argparse.Namespace) -> Iterator[Row]:
    epsilons = [float(epsilon) for epsilon in arguments.epsilons.split(",")]
    cases: list[tuple[int | None, Unit, bool]] = [
        (None, "image", False),
        (None, "patient", False),
        (arguments.sites, "image", True),
    ]
    for sites, unit, secure in cases:
        for epsilon in (None, *epsilons):
            privacy = None
            if epsilon is not None:
                privacy = Privacy(epsilon, DELTA, unit, arguments.images_per_patient, secure)
            yield from _of_privacy(federation, sites, unit, secure, privacy, arguments)


def _of_privacy(
    federation: Federation,
    sites: int | None,
    unit: Unit,
    secure: bool,
    privacy: Privacy | None,
    arguments: argparse.Namespace,
) -> Iterator[Row]:
    labels = [int(number) for number in arguments.labels.split(",")]
    found: dict[int, list[float]] = {number: [] for number in labels}
    zero_shot: list[float] = []
    for seed in range(arguments.seeds):
        dealt = federation.pool.deal(seed, sites).sites
        for place, newcomer in enumerate(dealt):
            if len(newcomer.test) < _LEAST_TEST_IMAGES:
                continue
            zero_shot.append(federation.zero_shot_accuracy(newcomer))
            others = [site for site in dealt if site is not newcomer]
            for draw in range(arguments.draws if privacy else 1):
                shared = federation.learn(others, privacy, np.random.default_rng([seed, place, draw]))
                for number in labels:
                    has = federation.newcomer(newcomer, number, 100 * seed + place)
                    found[number].append(federation.accuracy(has, newcomer, shared))
    for number, accuracies in found.items():
        yield Row(
            "natural" if sites is None else str(sites),
            unit,
            secure,
            number,
            privacy.epsilon if privacy else None,
            round(float(np.mean(accuracies)), 4),
            round(float(np.mean(zero_shot)), 4),
        )


def _tables(rows: list[Row]) -> str:
    """Return a table for each kind of federation: a line for each epsilon, columns by labels."""
    lines: list[str] = []
    for sites, unit, secure in dict.fromkeys((row.sites, row.unit, row.secure) for row in rows):
        chosen = [row for row in rows if (row.sites, row.unit, row.secure) == (sites, unit, secure)]
        by_case = {(row.epsilon, row.labels): row for row in chosen}
        labels = list(dict.fromkeys(row.labels for row in chosen))
        title = "natural sites" if sites == "natural" else f"{sites} sites, noise once for all"
        lines += [f"### {title}, privacy by {unit}", ""]
        headings = [f"{number} labels a class, %" for number in labels]
        lines.append(f"| epsilon | {' | '.join(headings)} | cost, points |")
        lines.append("|---" * (len(labels) + 2) + "|")
        zero_shot = [f"{100 * by_case[None, number].zero_shot:.1f}" for number in labels]
        lines.append(f"| zero-shot | {' | '.join(zero_shot)} | |")
        for epsilon in dict.fromkeys(row.epsilon for row in chosen):
            of_epsilon = [by_case[epsilon, number] for number in labels]
            cells = [f"{100 * row.accuracy:.1f}" for row in of_epsilon]
            exact = [by_case[None, number].accuracy for number in labels]
            costs = [f"{100 * (one - row.accuracy):.1f}" for one, row in zip(exact, of_epsilon, strict=True)]
            name, cost = _named(epsilon), "" if epsilon is None else ", ".join(costs)
            lines.append(f"| {name} | {' | '.join(cells)} | {cost} |")
        lines.append("")
    return "\n".join(lines)


def _named(epsilon: float | None) -> str:
    if epsilon is None:
        return "not private"
    return f"{epsilon:g}" if epsilon else "nothing is sent"


if __name__ == "__main__":
    main()
