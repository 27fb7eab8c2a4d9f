"""Was this image in the site's update? One message of class statistics, attacked with and without privacy.

    python -m benchmarks.privacy.membership --data FOLDER --bundle BUNDLE --out membership

A site's images are drawn from one hospital; candidates are all images of that hospital. The attacker knows
their embeddings and labels, how many images the site has, the plan, and of what images sites are drawn. An
update is a sum of one vector for each image, with noise where it is private. Two attacks:

- `projection`: the inner product of a candidate's vector with the update, both less what is expected;
- `LiRA` (Carlini et al. 2022, online, one variance for all): the same in units of how updates of shadow sites
  vary, and of each candidate the likelihood ratio of sites with it to those without it.

Reported are the area under the curve (0.5 is chance) and how many members are found at 1 % false alarms. And
`formed`: the class means in the update as guesses of the images, by the mean cosine with the nearest member,
both less the public centre; `public` is the same of the public class means, which know nothing. Writes
`membership.json` and `membership.md`.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.privacy.attacks import area_under_curve, nearest
from fedmedclip.edge_client.heads.whitening import one_hot
from fedmedclip.edge_client.privacy.public_space import Doubles, PublicSpace, space_of
from fedmedclip.edge_client.privacy.release import Terms
from fedmedclip.edge_client.privacy.sums import LONGEST, sums_of, vectors_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.folder import SERVER_REFERENCE
from fedmedclip.simulation.federation.source import Source, load_features

DELTA = 1e-5
_FALSE_ALARMS = 0.01
# Of the mean variance: what keeps the inverse finite; float32 and codecs hide what is smaller.
_RIDGE = 1e-3

Indices = npt.NDArray[np.int64]


class Row(msgspec.Struct, frozen=True):
    """What is found in updates of sites; `epsilon` None without privacy.

    `site` is the number of its images, drawn at random; or `each`, one of each class.
    """

    site: str
    epsilon: float | None
    projection: float
    lira: float
    lira_found: float
    formed: float
    public: float


@dataclass(frozen=True)
class Release:
    """What of an image is summed, (N, L) for all candidates, and the deviation of the noise in the sum."""

    vectors: Doubles
    deviation: float

    def observed(self, members: Indices, chance: np.random.Generator) -> Doubles:
        """Return the update (L,) of a site with these images."""
        total: Doubles = self.vectors[members].sum(axis=0)
        return total + self.deviation * chance.standard_normal(len(total))


@dataclass(frozen=True)
class Sites:
    """How sites are drawn of candidates with labels (N,): so many images, or with None one of each class."""

    labels: Indices
    images: int | None

    def draw(self, chance: np.random.Generator) -> Indices:
        """Return the images of a site."""
        mixed = chance.permutation(len(self.labels))
        if self.images is not None:
            return mixed[: self.images]
        return np.array([mixed[self.labels[mixed] == label][0] for label in np.unique(self.labels)])


class Attacker:
    """Scores all candidates for an update of a site that was drawn like this."""

    def __init__(self, release: Release, sites: Sites, shadows: int, chance: np.random.Generator) -> None:
        vectors = release.vectors
        images = len(sites.draw(chance))
        self._expected = images * vectors.mean(axis=0)
        self._offsets = vectors - vectors.mean(axis=0)
        covariance = images * np.cov(vectors.T, bias=True) + release.deviation**2 * np.eye(vectors.shape[1])
        ridge = _RIDGE * float(np.trace(covariance)) / len(covariance)
        self._whitened = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), self._offsets.T).T
        outside, inside = self._shadow_scores(release, sites, shadows, chance)
        self._outside, self._inside = outside.mean(axis=0), inside.mean(axis=0)
        residuals = np.concatenate([outside - self._outside, inside - self._inside])
        self._variance = max(float((residuals**2).mean()), 1e-12)

    def projection(self, update: Doubles) -> Doubles:
        """Return the inner products (N,) of candidates and update."""
        scores: Doubles = self._offsets @ (update - self._expected)
        return scores

    def likelihood_ratio(self, update: Doubles) -> Doubles:
        """Return the log likelihood ratios (N,) of sites with a candidate to those without."""
        scores = self._scores(update)
        ratios: Doubles = ((scores - self._outside) ** 2 - (scores - self._inside) ** 2) / (
            2 * self._variance
        )
        return ratios

    def _scores(self, update: Doubles) -> Doubles:
        scores: Doubles = self._whitened @ (update - self._expected)
        return scores

    def _shadow_scores(
        self, release: Release, sites: Sites, shadows: int, chance: np.random.Generator
    ) -> tuple[Doubles, Doubles]:
        """Return scores (shadows, N) of sites without and with each candidate, in another image's place."""
        own = (self._whitened * release.vectors).sum(axis=1)
        outside, inside = [], []
        for _ in range(shadows):
            members = sites.draw(chance)
            update = release.observed(members, chance)
            leaves = chance.choice(members)
            scores = self._scores(update)
            replaced = scores - self._whitened @ release.vectors[leaves] + own
            # A site that has the candidate already is one with it; without it another image is there.
            with_it = np.isin(np.arange(len(own)), members)
            other = scores - own + self._whitened @ release.vectors[chance.integers(len(own))]
            outside.append(np.where(with_it, other, scores))
            inside.append(np.where(with_it, scores, replaced))
        return np.array(outside), np.array(inside)


def main() -> None:
    """Measure all rows and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of sites")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle that encodes the images")
    parser.add_argument("--out", type=Path, required=True, help="folder of results and features")
    parser.add_argument("--hospital", default="hospital_2", help="whose images site and candidates are of")
    parser.add_argument("--sizes", default="each,2,20,340", help="images of a site")
    parser.add_argument("--epsilons", default="0.5,1,2,4,8,16")
    parser.add_argument("--targets", type=int, default=100, help="sites that are attacked")
    parser.add_argument("--shadows", type=int, default=200, help="sites that the attacker makes up")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    features = load_features(Source(arguments.data, arguments.bundle), arguments.out, console)
    if SERVER_REFERENCE not in features.unlabelled:
        raise InvalidInputError(f"data {arguments.data} has no {SERVER_REFERENCE} of public images; add one")
    pool = features.pool
    space = space_of(features.unlabelled[SERVER_REFERENCE], pool.class_embeddings, pool.logit_scale)
    chosen = np.flatnonzero(pool.sites == pool.site_names.index(arguments.hospital))
    rows: list[Row] = []
    for row in _rows(space, pool.embeddings[chosen], pool.labels[chosen], arguments):
        rows.append(row)
        console.print(str(row), highlight=False)
    document = {
        "candidates": len(chosen),
        "targets": arguments.targets,
        "shadows": arguments.shadows,
        "delta": DELTA,
        "rows": rows,
    }
    encoded = msgspec.json.format(msgspec.json.encode(document), indent=1)
    (arguments.out / "membership.json").write_bytes(encoded + b"\n")
    (arguments.out / "membership.md").write_text(_table(rows), encoding="utf-8")


def _rows(
    space: PublicSpace, embeddings: npt.NDArray[np.float32], labels: Indices, arguments: argparse.Namespace
) -> Iterator[Row]:
    epsilons = [float(epsilon) for epsilon in arguments.epsilons.split(",")]
    for size in arguments.sizes.split(","):
        for epsilon in (None, *epsilons):
            yield _row(space, embeddings, labels, size, epsilon, arguments)


def _row(
    space: PublicSpace,
    embeddings: npt.NDArray[np.float32],
    labels: Indices,
    size: str,
    epsilon: float | None,
    arguments: argparse.Namespace,
) -> Row:
    classes, centred = len(space.class_means), embeddings.astype(np.float64) - space.centre
    if epsilon is None:
        chosen = one_hot(labels, classes)
        sums = (chosen[:, :, None] * centred[:, None, :]).reshape(len(labels), -1)
        release = Release(np.concatenate([chosen, sums], axis=1), 0.0)
    else:
        vectors = vectors_of(space.clipped(embeddings), labels, classes)
        release = Release(vectors, Terms(epsilon, DELTA).deviation(LONGEST))
    chance = np.random.default_rng(0)
    sites = Sites(labels, int(size) if size.isdigit() else None)
    attacker = Attacker(release, sites, arguments.shadows, chance)
    scores: dict[str, list[Doubles]] = {"projection": [], "lira": []}
    members_of, formed, public = [], [], []
    for _ in range(arguments.targets):
        members = sites.draw(chance)
        update = release.observed(members, chance)
        scores["projection"].append(attacker.projection(update))
        scores["lira"].append(attacker.likelihood_ratio(update))
        members_of.append(np.isin(np.arange(len(labels)), members))
        guesses = _guesses(update, classes, epsilon, space)
        formed.append(_cosine(guesses, centred[members]))
        public.append(_cosine(space.embeddings_of(space.class_means) - space.centre, centred[members]))
    is_member = np.concatenate(members_of)
    by_attack = {name: np.concatenate(found) for name, found in scores.items()}
    return Row(
        size,
        epsilon,
        round(area_under_curve(by_attack["projection"], is_member), 3),
        round(area_under_curve(by_attack["lira"], is_member), 3),
        round(_found(by_attack["lira"], is_member), 3),
        round(float(np.nanmean(formed)), 3),
        round(float(np.mean(public)), 3),
    )


def _guesses(update: Doubles, classes: int, epsilon: float | None, space: PublicSpace) -> Doubles:
    """Return the class means (n, D), less the centre, of classes that seem to have an image."""
    if epsilon is None:
        counts, sums = update[:classes], update[classes:].reshape(classes, -1)
        present = counts > 0
        means: Doubles = sums[present] / counts[present, None]
        return means
    told = sums_of(update, classes, space.directions.shape[1], 0.0)
    present = told.counts > 0
    inside = told.sums[present] / told.counts[present, None]
    guesses: Doubles = space.embeddings_of(inside) - space.centre
    return guesses


def _cosine(guesses: Doubles, members: Doubles) -> float:
    """Return the mean cosine of guesses (n, D) with the nearest of members (m, D); NaN without guesses."""
    return float(nearest(guesses, members)[1].mean()) if len(guesses) else float("nan")


def _found(scores: Doubles, members: npt.NDArray[np.bool_]) -> float:
    """Return the share of members that score above all but 1 % of the others."""
    return float((scores[members] > np.quantile(scores[~members], 1 - _FALSE_ALARMS)).mean())


def _table(rows: list[Row]) -> str:
    lines = [
        "### Membership and reconstruction",
        "",
        "| images | epsilon | projection | LiRA | found at 1 % false alarms | formed | public |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        epsilon = "not private" if row.epsilon is None else f"{row.epsilon:g}"
        lines.append(
            f"| {row.site} | {epsilon} | {row.projection:.2f} | {row.lira:.2f} | "
            f"{100 * row.lira_found:.1f} % | {row.formed:.2f} | {row.public:.2f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
