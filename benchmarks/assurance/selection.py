"""What is gained where heads say that they do not know: errors caught, and risk against coverage."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.assurance.federations import Federation
from benchmarks.assurance.shares import Share
from fedmedclip.edge_client.heads.assurance import DEFAULT_SETTINGS
from fedmedclip.edge_client.heads.assuring import GroupedImages
from fedmedclip.edge_client.heads.selective import area_under_risk, risk_by_coverage
from fedmedclip.edge_client.inference.answers import answers_to
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.simulation.figure_files import plain_style, save


@dataclass
class Selection:
    """What became of the images of a place: shares, and confidence with whether the answer was wrong."""

    accuracy: Share = field(default_factory=Share)
    answered: Share = field(default_factory=Share)
    accuracy_of_answered: Share = field(default_factory=Share)
    accuracy_of_one_class: Share = field(default_factory=Share)
    unlike_of_errors: Share = field(default_factory=Share)
    errors_caught: Share = field(default_factory=Share)
    right_questioned: Share = field(default_factory=Share)
    areas: list[float] = field(default_factory=list)
    confidence: list[npt.NDArray[np.float32]] = field(default_factory=list)
    wrong: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures; AURC is the mean over sites and seeds."""
        shares = {name: share.as_dict() for name, share in vars(self).items() if isinstance(share, Share)}
        return shares | {"aurc": round(float(np.mean(self.areas)), 4)}


def selections(
    federations: Iterable[Federation], bundle: Bundle, elsewhere: GroupedImages
) -> dict[tuple[str, str], Selection]:
    """Return what becomes of own tests and of the global test, by method and place, with default settings."""
    found: dict[tuple[str, str], Selection] = defaultdict(Selection)
    for federation in federations:
        for member in federation.members:
            heads = member.assured(bundle, DEFAULT_SETTINGS)
            for place, images in (("own test", member.test), ("global test", elsewhere)):
                answers = answers_to(heads, bundle, images.embeddings)
                assert answers.sets is not None
                wrong = answers.probabilities.argmax(axis=1) != images.labels
                unlike, groups = answers.unlike, images.groups
                questioned = unlike | (answers.sets.sum(axis=1) > 1)
                confidence = answers.probabilities.max(axis=1)
                one = found[federation.method, place]
                one.accuracy.add(~wrong, groups)
                one.answered.add(~unlike, groups)
                one.accuracy_of_answered.add(~wrong[~unlike], groups[~unlike])
                one.accuracy_of_one_class.add(~wrong[~questioned], groups[~questioned])
                one.unlike_of_errors.add(unlike[wrong], groups[wrong])
                one.errors_caught.add(questioned[wrong], groups[wrong])
                one.right_questioned.add(questioned[~wrong], groups[~wrong])
                one.areas.append(area_under_risk(confidence, wrong))
                one.confidence.append(confidence)
                one.wrong.append(wrong)
    return found


def draw_risk(found: dict[tuple[str, str], Selection], stem: Path) -> list[Path]:
    """Draw the share of errors among the most confident against how many these are; return the files."""
    plain_style()
    import matplotlib.pyplot as plt

    places = list(dict.fromkeys(place for _, place in found))
    figure, axes = plt.subplots(1, len(places), figsize=(4.5 * len(places), 3.6), sharey=True, squeeze=False)
    for axis, place in zip(axes[0], places, strict=True):
        for (method, where), selection in found.items():
            if where == place:
                risks = risk_by_coverage(
                    np.concatenate(selection.confidence), np.concatenate(selection.wrong)
                )
                shares = np.arange(1, len(risks) + 1) / len(risks)
                axis.plot(shares, risks, label=f"{method}, AURC {np.mean(selection.areas):.3f}")
        axis.set(title=place, xlabel="share of the images, the most confident first", ylim=(0, None))
        axis.legend(frameon=False, fontsize=8)
    axes[0][0].set_ylabel("share of errors among them")
    figure.tight_layout()
    paths = save(figure, stem)
    plt.close(figure)
    return paths
