"""Which heads answer at a site: a new version takes over only if it is not worse on the site's own images.

It decides who answers, not what trains: the federation goes on from its newest head. So a round that ruins
the head, by accident or on purpose, does no harm to a hospital's answers that its own images can show.

The score is balanced accuracy, the mean recall of the classes in the split: by plain accuracy, a head that
calls everything by the most frequent class would pass for a good one. Where no version is as good as
zero-shot, zero-shot answers in its place. What else speaks against a version: `comparison`.

Each version is written with the assurance that the same split and the training images give. So the split has
also chosen what it is to calibrate: `docs/explanation/when-it-does-not-know.md` says what that means.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.assurance import DEFAULT_SETTINGS, AssuranceSettings
from fedmedclip.edge_client.heads.assuring import GroupedImages, ReferenceImages, assured
from fedmedclip.edge_client.heads.heads_file import Heads, encoded_heads, load_heads
from fedmedclip.edge_client.versions.comparison import compare
from fedmedclip.edge_client.versions.figures import digest_of, measured
from fedmedclip.edge_client.versions.held import HeldVersions
from fedmedclip.edge_client.versions.recent import RECENT, recent_embeddings
from fedmedclip.edge_client.versions.records import Comparison, VersionRecord
from fedmedclip.edge_client.versions.rule import DEFAULT_RULE, ActivationRule
from fedmedclip.edge_client.versions.versions import Versions
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.signature import SigningKey

log = logging.getLogger("fedmedclip.site")

_BY_RULE = "rule"
_FAULTS_IN_A_LINE = 3


@dataclass(frozen=True)
class Judged:
    """Heads with what the site found of them, and their record."""

    heads: Heads
    record: VersionRecord


class Guard:
    """Keeps a site's versions, signed with `key`, beside the heads file at `path`, and that one, by `rule`.

    `validation` is the split that decides. Of it and the `training` images the files have an assurance, as
    `settings` say; of none without either. `images` counts those of each part, for the record.
    """

    def __init__(
        self,
        path: Path,
        bundle: Bundle,
        validation: LabelledFeatures,
        key: SigningKey | None = None,
        training: LabelledFeatures | None = None,
        settings: AssuranceSettings = DEFAULT_SETTINGS,
        rule: ActivationRule = DEFAULT_RULE,
        images: Mapping[str, int] | None = None,
    ) -> None:
        self._path = path
        self._bundle = bundle
        self._key = key
        self._settings = settings
        self._rule = rule
        self._images = {"validation": len(validation.labels)} if images is None else dict(images)
        self._validation = _grouped(validation)
        self._reference = None
        digest = bundle.digest.hex()
        self._split = digest_of(*_arrays(self._validation), also=digest)
        self._assured_by = digest
        if training is not None and len(training.labels):
            grouped = _grouped(training)
            self._reference = ReferenceImages(grouped, len(bundle.manifest.class_names))
            also = f"{self._split} {msgspec.json.encode(settings).decode()}"
            self._assured_by = digest_of(*_arrays(grouped), also=also)
        self._versions = Versions(path.parent, path)
        self._set_aside_for: int | None = None
        self._warned = False
        self.verdict: VersionRecord | None = None
        """What became of the newest version; None before the first."""

    def judge(self, newest: Heads, run: int = 0, plan: str = "", *, is_version: bool = True) -> Heads | None:
        """Record the newest heads, let them answer if the rule has it so, and return what answers now.

        `run` and `plan` are its number and identity. A version that is known is not judged again. With
        `is_version` false the heads are none, such as private ones in training, and count only where nothing
        was ever recorded. None where the operator has made nothing active yet.

        Raises StorageError where nothing can be written.
        """
        with self._versions.held(thorough=False) as held:
            digest = self._bundle.digest.hex()
            held.changed |= held.catalogue.bundle != digest
            held.catalogue.bundle = digest
            active = self._on_another_split(held, self._active(held))
            known = held.catalogue.known(plan, run, newest.version)
            if known is not None and known.verdict == "not judged" and known.number != _number(active):
                # Its record was lost, or a kill came before the first one.
                is_new = is_version
            else:
                is_new = (is_version and known is None) or not held.catalogue.records
            if is_new:
                record = self._new(newest, run, plan, known)
                active = self._decided(held, self._judged(held, newest, record), active)
            held.catalogue.prune(self._rule.keep_versions)
            self.verdict = held.catalogue.newest
        if active is None:
            return None
        self._warn_of(active)
        return active.heads

    def _active(self, held: HeldVersions) -> Judged | None:
        """Return the active version, judged by the images as they are now; None where none can be used."""
        record = held.catalogue.active
        if record is None:
            return None
        try:
            heads = load_heads(self._path, self._bundle)
        except HeadError as error:
            log.warning("%s; the newest heads take its place", error)
            return None
        if (record.split, record.assured_by) == (self._split, self._assured_by):
            return Judged(heads, record)
        return self._judged(held, heads, record)

    def _on_another_split(self, held: HeldVersions, active: Judged | None) -> Judged | None:
        """Decide anew about the newest version where it was set aside, and the validation split changed."""
        newest = held.catalogue.newest
        if newest is None or newest.verdict != "set aside" or newest.split == self._split:
            return active
        try:
            heads = load_heads(held.path(newest), self._bundle)
        except HeadError as error:
            log.warning("%s", error, extra={"event": "version.unreadable"})
            return active
        return self._decided(held, self._judged(held, heads, newest), active)

    def _judged(self, held: HeldVersions, heads: Heads, record: VersionRecord) -> Judged:
        """Measure heads and keep their file, signed, with their assurance."""
        figures, judgement = measured(heads, self._bundle, self._validation, self._images)
        heads = replace(heads, judgement=judgement, assurance=None)
        if self._reference is not None:
            heads = assured(heads, self._bundle, self._validation, self._reference, self._settings)
        record = msgspec.structs.replace(
            record, figures=figures, split=self._split, assured_by=self._assured_by
        )
        return Judged(heads, held.put(record, encoded_heads(heads, self._bundle, self._key)))

    def _decided(self, held: HeldVersions, newer: Judged, active: Judged | None) -> Judged | None:
        """Decide whether a version becomes the active one; return the one that then is."""
        comparison, record = None, newer.record
        if active is not None:
            size = self._bundle.manifest.embedding_size
            comparison = compare(
                newer.heads,
                active.heads,
                active.record.name,
                self._bundle,
                self._validation,
                recent_embeddings(self._path.with_name(RECENT), self._bundle.digest, size),
                self._rule,
            )
            record = msgspec.structs.replace(record, comparison=comparison)
        if self._rule.activate == "by hand":
            held.decide(record, "waits", "versions are made active by hand here", _BY_RULE)
            log.info("version %s waits: fedmedclip site activate %s", record.version, record.name)
            return active
        if comparison is not None and comparison.worse and self._rule.activate == "guarded":
            assert active is not None
            against = active.record.called(record)
            reason = f"worse than version {against}: {'; '.join(comparison.worse)}"
            held.decide(record, "set aside", reason, _BY_RULE)
            self._say_set_aside(newer, active, comparison)
            return active
        reason = "the first" if active is None else f"not worse than version {active.record.called(record)}"
        if self._rule.activate == "always":
            reason = "every version is made active here"
        record = held.decide(record, "activated", reason, _BY_RULE)
        held.activate(record)
        self._set_aside_for = None
        return Judged(newer.heads, record)

    def _new(self, heads: Heads, run: int, plan: str, known: VersionRecord | None) -> VersionRecord:
        now = time.time()
        return VersionRecord(
            number=0 if known is None else known.number,
            run=run,
            version=heads.version,
            plan=plan,
            made_at=now,
            method=heads.method,
            bundle=self._bundle.digest.hex(),
            file="",
            sha256="",
            bytes=0,
            verdict="not judged",
            reason="",
            by=_BY_RULE,
            decided_at=now,
        )

    def _say_set_aside(self, newer: Judged, active: Judged, comparison: Comparison) -> None:
        """Say that a version was set aside: once, until another one is active."""
        if self._set_aside_for == active.record.number:
            return
        self._set_aside_for = active.record.number
        more = len(comparison.worse) - _FAULTS_IN_A_LINE
        log.warning(
            "version %d is set aside, version %d goes on answering: %s%s",
            newer.heads.version,
            active.heads.version,
            "; ".join(comparison.worse[:_FAULTS_IN_A_LINE]),
            f"; and {more} more" if more > 0 else "",
        )

    def _warn_of(self, active: Judged) -> None:
        """Say once that no version is good enough to answer, or that nobody knows how good it is."""
        judgement, words = active.heads.judgement, ""
        if judgement is None:
            words = "the validation split has no images: the newest version answers, whatever it is worth"
        elif judgement.zero_shot_answers:
            words = (
                f"no version yet is as good as zero-shot on the {judgement.images} images of the validation "
                f"split (balanced accuracy {judgement.heads:.3f}, zero-shot {judgement.zero_shot:.3f}): "
                "zero-shot answers"
            )
        if words and not self._warned:
            log.warning("%s", words, extra={"event": "version.guard_decided"})
        self._warned = bool(words)


def _number(judged: Judged | None) -> int:
    return 0 if judged is None else judged.record.number


def _grouped(features: LabelledFeatures) -> GroupedImages:
    return GroupedImages.of(features.embeddings, features.labels, features.groups)


def _arrays(images: GroupedImages) -> tuple[npt.NDArray[Any], ...]:
    return images.embeddings, images.labels, images.groups
