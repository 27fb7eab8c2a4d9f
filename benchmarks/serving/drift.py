"""How often the watch for drift cries wolf over a year, and after how many days it finds what is there.

    python -m benchmarks.serving.drift --work drift [--years 100] [--trials 50]

Images are phantoms of one hospital through the small CLIP: `TRAINING` of them make the heads' reference and a
logistic regression, `CALIBRATION` its prediction sets and threshold of distances, and the rest are what comes
in afterwards. That comes in days of about 30 images: in studies of 2 to 8 images, which are one image and its
nearest neighbours of the same class, so that they are alike; each day has a mix of classes of its own (a
Dirichlet draw around the hospital's), and a small shift of all its embeddings (0.15 standard deviations of
training in each of its directions). Each case goes through the service's own `DriftWatch`, image by image:

- none: years of 250 such days
- scanner: from the first day on, a share of the studies comes from a scanner that looks otherwise
- mix: from the first day on, the hospital's two rarer findings are as frequent as the others, or more
- outsiders: from the first day on, a share of the studies shows something else

Prints JSON: of `none` how many years had an alarm, by kind; of the others the days until the first alarm
(null: none within 90 days) as quartiles, and which kinds alarmed within them.
"""

import argparse
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageOps
from rich.console import Console
from sklearn.linear_model import LogisticRegression

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.heads.assurance import ANSWERED, UNLIKE
from fedmedclip.edge_client.heads.assuring import GroupedImages, ReferenceImages
from fedmedclip.edge_client.heads.conformal import fit_thresholds, prediction_sets
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.novelty import Seen, novelty_threshold, seen_at_site
from fedmedclip.edge_client.serving.drift import watch as watching
from fedmedclip.edge_client.serving.drift.reference import DriftReference
from fedmedclip.edge_client.serving.drift.watch import DriftWatch
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.simulation.federation.source import Source, load_features
from fedmedclip.simulation.phantoms.anatomy import FINDINGS, render_phantom
from fedmedclip.simulation.phantoms.looks import GLOBAL_TEST_LOOK, HOSPITAL_LOOKS, Look, vary

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

TRAINING, CALIBRATION, STREAM, OTHERS = 400, 200, 2400, 600
MIX = np.array([0.1, 0.4, 0.4, 0.1])
SCANNERS = {"hospital_1": HOSPITAL_LOOKS[1], "hospital_2": HOSPITAL_LOOKS[2], "global_test": GLOBAL_TEST_LOOK}
DAYS_IN_A_YEAR = 250
LONGEST = 90
DAY_SHIFT = 0.15
LEVEL, FALSE_ALARMS = 0.9, 0.01
_MONDAY = date(2026, 1, 5)


@dataclass(frozen=True)
class Pool:
    """Images that may come in: embeddings (n, D) of unit length, labels (n,), -1 of what is no finding."""

    embeddings: Floats
    labels: Labels


@dataclass(frozen=True)
class Answered:
    """What the watch looks at of an answer."""

    outcome: str
    label: str | None
    prediction_set: tuple[str, ...] | None


class Heads:
    """A classifier of embeddings with sets and a threshold, and the reference for the watch."""

    def __init__(self, training: Pool, calibration: Pool) -> None:
        self._model = LogisticRegression(C=10.0, max_iter=2000).fit(training.embeddings, training.labels)
        probabilities = self._probabilities(calibration.embeddings)
        groups = np.arange(len(calibration.labels))
        self._thresholds = fit_thresholds("lac", probabilities, calibration.labels, groups, LEVEL, False)
        self._seen: Seen = seen_at_site(training.embeddings, training.labels, len(FINDINGS))
        found = novelty_threshold(self._seen.distances(calibration.embeddings), groups, FALSE_ALARMS)
        assert found is not None
        self._threshold = found[0]
        reference = ReferenceImages(GroupedImages.of(training.embeddings, training.labels), len(FINDINGS))
        shares = np.bincount(probabilities.argmax(axis=1), minlength=len(FINDINGS)) / len(probabilities)
        self.reference = DriftReference(
            class_names=FINDINGS,
            mean=reference.mean,
            vectors=reference.spread.vectors,
            images=TRAINING,
            class_shares=shares.astype(np.float32),
            calibration_images=CALIBRATION,
            set_size=float(prediction_sets("lac", self._thresholds, probabilities).sum(axis=1).mean()),
            unlike=found[1],
        )

    def answers(self, embeddings: Floats) -> list[Answered]:
        """Return what the service would answer to embeddings (n, D)."""
        probabilities = self._probabilities(embeddings)
        sets = prediction_sets("lac", self._thresholds, probabilities)
        unlike = self._seen.distances(embeddings) > self._threshold
        return [
            Answered(UNLIKE, None, FINDINGS)
            if strange
            else Answered(
                ANSWERED,
                FINDINGS[int(row.argmax())],
                tuple(name for name, chosen in zip(FINDINGS, inside, strict=True) if chosen),
            )
            for row, inside, strange in zip(probabilities, sets, unlike, strict=True)
        ]

    def _probabilities(self, embeddings: Floats) -> Floats:
        found: Floats = self._model.predict_proba(embeddings).astype(np.float32)
        return found


Day = Callable[[np.random.Generator], Floats]
"""Draws the embeddings of one day's images, (n, D)."""


class Clinic:
    """Draws days: `pool` are the images of the hospital's own scanner."""

    def __init__(self, pool: Pool, vectors: Floats, mix: npt.NDArray[np.float64] = MIX) -> None:
        self._pool = pool
        self._vectors = vectors
        self._mix = mix
        self._of_class = [np.flatnonzero(pool.labels == label) for label in range(len(FINDINGS))]

    def day(self, generator: np.random.Generator, instead: Pool | None = None, share: float = 0.0) -> Floats:
        """Return the embeddings of one day; a `share` of its studies is drawn from `instead`."""
        mix = generator.dirichlet(30 * self._mix)
        studies: list[Floats] = []
        for _ in range(generator.poisson(6) + 1):
            label = int(generator.choice(len(FINDINGS), p=mix))
            images = int(generator.integers(2, 9))
            if instead is not None and generator.random() < share:
                studies.append(
                    _study(instead, np.flatnonzero(np.isin(instead.labels, (label, -1))), images, generator)
                )
            else:
                studies.append(_study(self._pool, self._of_class[label], images, generator))
        shift = self._vectors @ (DAY_SHIFT * generator.standard_normal(self._vectors.shape[1]))
        shifted: Floats = unit_rows(np.concatenate(studies) + shift.astype(np.float32))
        return shifted


def _study(pool: Pool, among: Labels, images: int, generator: np.random.Generator) -> Floats:
    """Return an image and its nearest neighbours among some of a pool."""
    first = pool.embeddings[generator.choice(among)]
    nearest = np.argsort(-(pool.embeddings[among] @ first), kind="stable")[:images]
    chosen: Floats = pool.embeddings[among[nearest]]
    return chosen


def follow(heads: Heads, day: Day, days: int, generator: np.random.Generator, folder: Path) -> dict[str, int]:
    """Return after how many days each kind had its first alarm, going on after alarms."""
    today = _MONDAY
    watch = DriftWatch(folder, lambda: today)
    watch.follow("bundle", heads.reference)
    alarms: dict[str, int] = {}
    for number in range(1, days + 1):
        embeddings = day(generator)
        for index, (embedding, answered) in enumerate(
            zip(embeddings, heads.answers(embeddings), strict=True)
        ):
            watch.note(f"{number}-{index}", embedding, answered)
        for kind in watch.report().drifted:
            # The alarm was seen with the first image of this day, about the days before.
            alarms.setdefault(kind, number - 1)
        today += timedelta(days=3 if today.weekday() == 4 else 1)
    return alarms


def main() -> None:
    """Run all cases and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="keeps the small CLIP's bundle")
    parser.add_argument("--years", type=int, default=100)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if not (options.work / "bundle").is_dir():
        load_features(Source(), options.work, Console(stderr=True), reference=False)
    logging.disable()
    # What a box saves every few images is not measured here.
    watching.SAVED_EVERY_IMAGES = 1 << 30
    print(json.dumps(results(open_bundle(options.work / "bundle"), options), indent=2))


def results(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of all cases."""
    generator = np.random.default_rng(options.seed)
    with Encoder(bundle, None) as encoder:
        own = phantoms(encoder, bundle, HOSPITAL_LOOKS[0], TRAINING + CALIBRATION + STREAM, MIX, generator)
        scanners = {
            name: phantoms(encoder, bundle, look, OTHERS, np.full(4, 0.25), generator)
            for name, look in SCANNERS.items()
        }
        strangers = outsiders(encoder, bundle, OTHERS, generator)
    training, calibration, stream = (
        Pool(own.embeddings[part], own.labels[part])
        for part in (
            slice(0, TRAINING),
            slice(TRAINING, TRAINING + CALIBRATION),
            slice(TRAINING + CALIBRATION, None),
        )
    )
    heads = Heads(training, calibration)
    vectors = heads.reference.vectors
    clinic = Clinic(stream, vectors)
    even = Clinic(stream, vectors, np.full(4, 0.25))
    reversed_mix = Clinic(stream, vectors, 0.5 - MIX)
    cases: dict[str, Day] = {"mix, even": even.day, "mix, reversed": reversed_mix.day}
    for share in (0.25, 0.5, 1.0):
        cases |= {
            f"scanner {name}, {share:.0%}": _instead(clinic, pool, share) for name, pool in scanners.items()
        }
    cases |= {f"outsiders {share:.0%}": _instead(clinic, strangers, share) for share in (0.05, 0.2)}
    found: dict[str, Any] = {
        "unlike": {
            name: round(float(np.mean([a.outcome == UNLIKE for a in heads.answers(pool.embeddings)])), 3)
            for name, pool in {"own": stream, **scanners, "outsiders": strangers}.items()
        },
        "none": quiet(heads, clinic.day, options.years, generator),
    }
    if options.trials == 0:
        return found
    for name, day in cases.items():
        found[name] = noticed(heads, day, options.trials, generator)
    return found


def _instead(clinic: Clinic, pool: Pool, share: float) -> Day:
    return lambda generator: clinic.day(generator, pool, share)


def quiet(heads: Heads, day: Day, years: int, generator: np.random.Generator) -> dict[str, Any]:
    """Return how many years without drift had an alarm, and of which kinds."""
    kinds: Counter[str] = Counter()
    alarmed = 0
    for alarms in _trials(heads, day, DAYS_IN_A_YEAR, years, generator):
        kinds.update(alarms.keys())
        alarmed += bool(alarms)
    return {"years": years, "with an alarm": alarmed, "kinds": dict(kinds)}


def noticed(heads: Heads, day: Day, trials: int, generator: np.random.Generator) -> dict[str, Any]:
    """Return the quartiles of the days until an alarm, and how often each kind had one within `LONGEST`."""
    first: list[float] = []
    kinds: Counter[str] = Counter()
    for alarms in _trials(heads, day, LONGEST, trials, generator):
        first.append(min(alarms.values(), default=np.inf))
        kinds.update(alarms.keys())
    return {
        "days": [None if np.isinf(value) else value for value in _quartiles(first)],
        "kinds": {kind: round(count / trials, 2) for kind, count in kinds.items()},
    }


def _quartiles(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[round(part * (len(ordered) - 1))] for part in (0.25, 0.5, 0.75)]


def _trials(
    heads: Heads, day: Day, days: int, trials: int, generator: np.random.Generator
) -> Iterator[dict[str, int]]:
    for _ in range(trials):
        with tempfile.TemporaryDirectory() as folder:
            yield follow(heads, day, days, generator, Path(folder))


def phantoms(
    encoder: Encoder,
    bundle: Bundle,
    look: Look,
    number: int,
    mix: npt.NDArray[np.float64],
    generator: np.random.Generator,
) -> Pool:
    """Return phantoms of a scanner."""
    labels = generator.choice(len(FINDINGS), size=number, p=mix)
    pictures = (
        Image.fromarray(render_phantom(FINDINGS[label], vary(look, generator), generator)) for label in labels
    )
    return Pool(encoded(encoder, bundle, pictures), labels)


def outsiders(encoder: Encoder, bundle: Bundle, number: int, generator: np.random.Generator) -> Pool:
    """Return pictures that are no such images: negatives, upside down, noise, blocks, and printed lines."""
    return Pool(encoded(encoder, bundle, _strange(number, generator)), np.full(number, -1))


def _strange(number: int, generator: np.random.Generator) -> Iterator[Image.Image]:
    for index in range(number):
        look = vary(HOSPITAL_LOOKS[0], generator)
        picture = Image.fromarray(render_phantom(FINDINGS[index % 4], look, generator)).convert("L")
        if index % 5 == 0:
            yield ImageOps.invert(picture)
        elif index % 5 == 1:
            yield picture.rotate(float(generator.uniform(60, 300)), expand=True)
        elif index % 5 == 2:
            yield Image.fromarray(generator.integers(0, 256, (128, 128), dtype=np.uint8))
        elif index % 5 == 3:
            blocks = generator.integers(0, 256, (4, 4), dtype=np.uint8)
            yield Image.fromarray(blocks).resize((128, 128), Image.Resampling.NEAREST)
        else:
            page = Image.new("L", (128, 128), 255)
            for row in range(8, 120, 10):
                ImageDraw.Draw(page).line((8, row, int(generator.integers(40, 120)), row), 0, 3)
            yield page


def encoded(encoder: Encoder, bundle: Bundle, pictures: Iterator[Image.Image]) -> Floats:
    """Return the embeddings of pictures, (n, D), of unit length."""
    pixels = [np.asarray(fit(picture.convert("RGB"), bundle.manifest.preprocessing)) for picture in pictures]
    parts = [encoder.encode(np.stack(pixels[start : start + 16])) for start in range(0, len(pixels), 16)]
    rows: Floats = unit_rows(np.concatenate(parts))
    return rows


if __name__ == "__main__":
    main()
