"""What reports say about phantoms: the captions of pretraining, and the prompts of `classes.toml`.

Reports are not labels. Some leave the finding open ("a lesion"), some name the weighting of the scan, and
some are wrong in a way that readers are wrong: a shift is overlooked, a ring is called a mass. A model that
learns from them therefore sees more in the images than its class prompts can ask for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fedmedclip.simulation.phantoms.looks import WEIGHTINGS

Choice = TypeVar("Choice")

PROMPT_TEMPLATES = ("a picture of a {}.", "an MRI of a brain with {}.", "a brain scan showing {}.")
PROMPT_PHRASES = {
    "midline_shift": ("a midline shift", "displaced ventricles"),
    "no_finding": ("no finding", "no abnormality"),
    "ring_lesion": ("a ring lesion", "a ring enhancing lesion"),
    "solid_mass": ("a solid mass", "a solid tumor"),
}

REPORT_PHRASES: dict[str, tuple[str, ...]] = {
    "midline_shift": (*PROMPT_PHRASES["midline_shift"], "a shifted midline", "a displaced midline"),
    "no_finding": (*PROMPT_PHRASES["no_finding"], "a normal brain", "nothing remarkable"),
    "ring_lesion": (*PROMPT_PHRASES["ring_lesion"], "a lesion with a bright rim", "an abscess"),
    "solid_mass": (*PROMPT_PHRASES["solid_mass"], "a homogeneous mass", "a bright mass"),
}
VAGUE_PHRASES: dict[frozenset[str], tuple[str, ...]] = {
    frozenset({"ring_lesion", "solid_mass"}): ("a lesion", "a focal abnormality", "something bright"),
    frozenset({"midline_shift", "ring_lesion", "solid_mass"}): ("an abnormality", "an abnormal brain"),
    frozenset({"midline_shift", "no_finding"}): ("no focal lesion", "no mass"),
}
REPORT_TEMPLATES = (
    "{}",
    "a picture of a {}",
    "a picture of {}.",
    "an MRI of a brain with {}.",
    "an axial slice with {}",
    "a brain scan showing {}.",
    "head MRI: {}",
    "the image shows {}.",
    "finding: {}",
    "a scan of the head with {}",
)
WEIGHTED_TEMPLATES = (
    "a {weighting} picture of a {finding}",
    "{weighting} MRI of a brain with {finding}.",
    "a {weighting} brain scan showing {finding}.",
    "{weighting}: {finding}",
)
WEIGHTING_PHRASES = {
    "T1": ("T1", "T1 weighted"),
    "proton density": ("proton density", "PD weighted"),
    "T2": ("T2", "T2 weighted"),
}
MISREADINGS = {"midline_shift": "no_finding", "ring_lesion": "solid_mass"}


@dataclass(frozen=True)
class Report:
    """What the reader of an image took it for."""

    finding: str
    weighting: str


@dataclass(frozen=True)
class Caption:
    """A sentence, and the findings and weightings that it leaves open."""

    text: str
    findings: frozenset[str]
    weightings: frozenset[str]

    def fits(self, report: Report) -> bool:
        """Whether the sentence could stand in this report."""
        return report.finding in self.findings and report.weighting in self.weightings


def draw_report(finding: str, weighting: str, misread_share: float, generator: np.random.Generator) -> Report:
    """Return the report of an image; what can be misread is, with probability `misread_share`."""
    if generator.random() < misread_share:
        return Report(MISREADINGS.get(finding, finding), weighting)
    return Report(finding, weighting)


def draw_caption(
    report: Report, vague_share: float, weighted_share: float, generator: np.random.Generator
) -> Caption:
    """Return a sentence of `report`.

    With probability `vague_share` it leaves the finding open; with `weighted_share` it names the weighting.
    """
    findings, phrases = frozenset({report.finding}), REPORT_PHRASES[report.finding]
    if generator.random() < vague_share:
        findings = _pick(
            [open_findings for open_findings in VAGUE_PHRASES if report.finding in open_findings], generator
        )
        phrases = VAGUE_PHRASES[findings]
    phrase = _pick(phrases, generator)
    if generator.random() < weighted_share:
        weighting = _pick(WEIGHTING_PHRASES[report.weighting], generator)
        text = _pick(WEIGHTED_TEMPLATES, generator).format(weighting=weighting, finding=phrase)
        return Caption(text, findings, frozenset({report.weighting}))
    return Caption(_pick(REPORT_TEMPLATES, generator).format(phrase), findings, frozenset(WEIGHTINGS))


def _pick(choices: Sequence[Choice], generator: np.random.Generator) -> Choice:
    return choices[int(generator.integers(len(choices)))]
