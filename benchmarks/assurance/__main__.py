"""What prediction sets hold, what is called unlike what was seen, and how many errors that catches.

    python -m benchmarks.assurance --data FOLDER --bundle BUNDLE --out assurance
    python -m benchmarks.assurance --foreign FOLDER --out assurance      # the phantoms

Whole federations of the natural sites are played; each site calibrates its heads on its validation split, as
a site does. The global test is of scanners that no site has. `--foreign` are images of another modality:
without it, of a data set that is given, the phantoms. How novelty is told was chosen on the phantoms.

Writes `assurance.json`, `assurance.md` and a figure into the folder, and prints the figures as one JSON
object, last.
"""

import argparse
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from benchmarks.assurance.coverage import coverage
from benchmarks.assurance.federations import global_test, played
from benchmarks.assurance.novelty import called_unlike, candidates
from benchmarks.assurance.outsiders import outsiders
from benchmarks.assurance.page import page
from benchmarks.assurance.selection import draw_risk, selections
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.source import Source, load_features
from fedmedclip.simulation.phantoms.phantoms import write_federation

METHODS = "one-message,fedmedclip"


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of sites")
    parser.add_argument("--bundle", type=Path, help="bundle that encodes the images")
    parser.add_argument("--foreign", type=Path, help="folder of sites, or of images, of another modality")
    parser.add_argument("--out", type=Path, required=True, help="folder of results and features")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    content = measured(options)
    (options.out / "assurance.json").write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    (options.out / "assurance.md").write_text(page(content), encoding="utf-8")
    print(msgspec.json.encode(content).decode())


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return all figures; the figure of risk is drawn on the way."""
    source = Source(options.data, options.bundle)
    features = load_features(source, options.out, Console(stderr=True), reference=False)
    pool, bundle = features.pool, features.bundle
    assert bundle is not None
    seeds = [int(seed) for seed in options.seeds.split(",")]
    elsewhere = global_test(pool)
    own = (options.data or options.out / "phantoms") / GLOBAL_TEST
    strangers = outsiders(bundle, own, _foreign(options))
    federations = [
        federation
        for method in options.methods.split(",")
        for federation in played(pool, bundle, method, seeds, options.out / "work")
    ]
    first = [federation for federation in federations if federation.method == federations[0].method]
    chosen = selections(federations, bundle, elsewhere)
    draw_risk(chosen, options.out / "assurance-risk")
    return {
        "images": {"sites": len(pool.labels), "global_test": len(elsewhere.labels)},
        "seeds": seeds,
        "validation": [[len(member.validation.labels) for member in each.members] for each in first],
        "coverage": coverage(federations, bundle, elsewhere),
        "selection": [
            {"method": method, "place": place} | found.as_dict() for (method, place), found in chosen.items()
        ],
        "unlike": called_unlike(federations, bundle, elsewhere, strangers),
        "candidates": candidates(first, strangers, len(pool.class_embeddings)),
    }


def _foreign(options: argparse.Namespace) -> Path | None:
    """Return the folder of images of another modality; the phantoms for data that are none."""
    folder: Path | None = options.foreign
    if folder is None:
        if options.data is None:
            return None
        folder = options.out / "phantoms"
        # Written last, so what a killed run left is made again.
        if not (folder / "classes.toml").exists():
            write_federation(folder, 0)
    return folder / GLOBAL_TEST if (folder / GLOBAL_TEST).is_dir() else folder


if __name__ == "__main__":
    main()
