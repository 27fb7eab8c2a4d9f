"""What the maps of `fedmedclip explain` are worth, by deletion and insertion, beside maps that say nothing.

    python -m benchmarks.explanation.comparison --out phantoms
    python -m benchmarks.explanation.comparison --data DATA --bundle BUNDLE --model MODEL --out brain

Without `--data`, on phantoms, covers and scales of occlusion are compared; the product's were chosen there.
With it nothing is chosen: occlusion as the product does it against a map by chance and against a Gaussian in
the middle, on the images of the global test, paired by group. Writes tables and a figure into `--out`.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.explanation.curves import STEPS, Curves, curves_of
from benchmarks.explanation.images import ExplainedImages, global_test_images, trained_head
from benchmarks.explanation.maps import (
    COVERS,
    SCALE_SETS,
    USUAL_COVER,
    USUAL_SCALES,
    MakeMap,
    centred_gaussian,
    occlusion,
    occlusion_by,
    random_map,
    random_masks,
)
from benchmarks.explanation.value_path import value_path
from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.heads.classification import answer
from fedmedclip.edge_client.heads.paired_tests import random_sign_flips
from fedmedclip.edge_client.inference.regions import Pixels
from fedmedclip.export.model import load_model
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.simulation.accuracy.significance import Comparison, holm, paired_bootstrap
from fedmedclip.simulation.federation.source import phantoms_of
from fedmedclip.simulation.figure_files import plain_style, save
from fedmedclip.simulation.phantoms.small_clip import small_clip

Floats = npt.NDArray[np.float64]

OURS, CHANCE, MIDDLE = "occlusion", "by chance", "Gaussian in the middle"
RISE, VALUES = "random masks (RISE)", "value path (MaskCLIP)"
MEASURES = ("deletion", "insertion", "insertion less deletion")
_SMALLER_IS_BETTER = (-1, 1, 1)


def main() -> None:
    """Measure, print the tables, write them and the figure."""
    options = _options()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    data, folder, model = options.data, options.bundle, options.model
    chosen_here = data is None
    if data is None:
        data, folder = phantoms_of(out)
        model = small_clip("--data with --bundle and --model")
    bundle = open_bundle(folder)
    makers: dict[str, MakeMap] = {CHANCE: random_map, MIDDLE: centred_gaussian, RISE: random_masks}
    if chosen_here:
        ways = [(cover, USUAL_SCALES) for cover in COVERS]
        ways += [(USUAL_COVER, scales) for scales in SCALE_SETS if scales != USUAL_SCALES]
        makers |= {f"occlusion: {cover}; {scales}": occlusion_by(cover, scales) for cover, scales in ways}
    else:
        makers[OURS] = occlusion
    images = global_test_images(data, bundle, out / "features.db").some(options.images)
    heads = trained_head(data, bundle, options.method, out, options.rounds)
    with Encoder(bundle, options.threads) as encoder:

        def classify(pixels: Pixels) -> npt.NDArray[np.float32]:
            return answer(heads, bundle, encoder.encode(pixels))[0]

        if model is not None:
            makers[VALUES] = value_path(
                load_model(model, None), lambda found: answer(heads, bundle, found)[0]
            )
        found = {
            name: [
                curves_of(make(classify, pixels, number), classify, pixels, _grey(bundle), number)
                for number, pixels in enumerate(images.pixels)
            ]
            for name, make in makers.items()
        }
        right = np.mean([int(classify(p[None]).argmax()) for p in images.pixels] == images.labels)
    tables = report(found, images, float(right), None if chosen_here else OURS)
    (out / "explanations.md").write_text(tables, encoding="utf-8")
    print(tables)
    if not chosen_here:
        draw({name: found[name] for name in (OURS, CHANCE, MIDDLE)}, out / "explanations")
    areas = {name: np.array([curves.areas for curves in of_map]).tolist() for name, of_map in found.items()}
    (out / "explanations.json").write_text(json.dumps(areas), encoding="utf-8")


def report(
    found: Mapping[str, Sequence[Curves]], images: ExplainedImages, right: float, ours: str | None
) -> str:
    """Return Markdown: the mean areas of each map and, of `ours`, the paired comparisons."""
    areas = {name: np.array([curves.areas for curves in of_map]) for name, of_map in found.items()}
    groups = len(np.unique(images.groups))
    lines = [
        "# images",
        "",
        "| images | groups | the head is right, % |",
        "|---:|---:|---:|",
        f"| {len(images.pixels)} | {groups} | {100 * right:.1f} |",
        "",
        "# areas",
        "",
        "| map | deletion | insertion | insertion less deletion |",
        "|---|---:|---:|---:|",
    ]
    ranked = sorted(areas.items(), key=lambda item: -item[1][:, 2].mean())
    lines += [
        f"| {name} | {' | '.join(f'{v:.3f}' for v in of_map.mean(axis=0))} |" for name, of_map in ranked
    ]
    if ours is not None:
        lines += [
            "",
            "# paired",
            "",
            "| occlusion against | measure | better by | 95 % | groups better | worse | p, corrected |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {other} | {measure} | {c.difference:+.3f} | {c.low:+.3f} to {c.high:+.3f} "
            f"| {c.better} | {c.worse} | {c.p_corrected:.4f} |"
            for (other, measure), c in comparisons(areas, ours, images.groups).items()
        ]
    return "\n".join(lines) + "\n"


def comparisons(
    areas: Mapping[str, Floats], ours: str, groups: npt.NDArray[np.int64]
) -> dict[tuple[str, str], Comparison]:
    """Return how much better `ours` is than each other map, by each measure, groups being the unit.

    `areas` (N, 3) by map. Holm's correction is over all of them.
    """
    _, group = np.unique(groups, return_inverse=True)
    counts = np.bincount(group).astype(np.float64)[:, None]
    found = {}
    for other in (name for name in areas if name != ours):
        for column, (measure, sign) in enumerate(zip(MEASURES, _SMALLER_IS_BETTER, strict=True)):
            better = sign * (areas[ours][:, column] - areas[other][:, column])
            gains = np.bincount(group, weights=better).astype(np.float64)
            low, high = paired_bootstrap(gains[:, None], counts, seed=0)
            # A group counts once, however many images it has.
            means = gains / counts[:, 0]
            found[f"{other}|{measure}"] = Comparison(
                float(gains.sum() / counts.sum()),
                low,
                high,
                int((means > 0).sum()),
                int((means < 0).sum()),
                len(means),
                random_sign_flips(means, seed=0),
            )
    return {(name.partition("|")[0], name.partition("|")[2]): c for name, c in holm(found).items()}


def draw(found: Mapping[str, Sequence[Curves]], stem: Path) -> None:
    """Write the mean curves as SVG and PNG."""
    plain_style()
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    share = np.arange(STEPS + 1) / STEPS
    styles = zip(found.items(), ("-", "--", ":"), ("#0072B2", "#D55E00", "#009E73"), strict=True)
    for (name, of_map), line, colour in styles:
        for axis, which in zip(axes, ("deletion", "insertion"), strict=True):
            mean = np.mean([getattr(curves, which) for curves in of_map], axis=0)
            axis.plot(share, mean, line, color=colour, label=name)
            axis.set(title=which, xlabel=f"pixels {'deleted' if which == 'deletion' else 'inserted'}")
    axes[0].set(ylabel="probability of the answer", ylim=(0, 1))
    axes[0].legend(frameon=False)
    save(figure, stem)


def _grey(bundle: Bundle) -> tuple[float, float, float]:
    return bundle.manifest.preprocessing.mean


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--model", help="also measure the value path of this model, by PyTorch")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="fedmedclip", help="what the sites train")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--images", type=int, help="so many images, drawn; default: all")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
