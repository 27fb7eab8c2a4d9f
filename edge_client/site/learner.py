"""What a site learns from its own images: local rounds, and how good each version is here."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.encoder import encoded_images
from fedmedclip.edge_client.features.labelled import LabelledFeatures, SiteFeatures
from fedmedclip.edge_client.features.references import SURROGATES, reference_of, target_embeddings
from fedmedclip.edge_client.heads.assurance import DEFAULT_SETTINGS, AssuranceSettings
from fedmedclip.edge_client.heads.classification import predict
from fedmedclip.edge_client.heads.ensemble import ENTROPY, fit_calibrated
from fedmedclip.edge_client.heads.heads import ensemble_of
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.heads.metrics import Metrics
from fedmedclip.edge_client.inference.evaluation import evaluate, evaluate_assurance
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, Floors, train_within
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.private_state import (
    head_of,
    initial_private_state,
    private_state_specification,
)
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import Floats, Labels, TrainedHeads, train_round
from fedmedclip.edge_client.learning.version_head import adapted, adapts_to_versions
from fedmedclip.edge_client.site.answering_version import AnsweringVersion
from fedmedclip.edge_client.site.private_learning import PrivateLearning
from fedmedclip.edge_client.site.roles import Contribution, PrivateSide
from fedmedclip.edge_client.site.shared_metrics import SharedMetrics
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.edge_client.versions.guard import Guard
from fedmedclip.edge_client.versions.records import VersionRecord
from fedmedclip.edge_client.versions.rule import DEFAULT_RULE, ActivationRule
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.codecs.error_feedback import Compressed
from fedmedclip.protocol.codecs.residual_watch import ResidualWatch
from fedmedclip.protocol.configuration import convert
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.methods import faults_of_others
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.privacy import NO_DEMAND, PrivacySettings
from fedmedclip.protocol.progress import progress_lines
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.protocol.signature import SigningKey

log = logging.getLogger("fedmedclip.site")


@dataclass(frozen=True)
class LearnerFiles:
    """Where a site's results lie: heads for `fedmedclip predict`, and the last version's figures.

    The `key` signs the heads; without it nobody does.
    """

    heads: Path
    evaluation: Path
    key: SigningKey | None = None


@dataclass(frozen=True)
class _Counted:
    sent_bytes: int = 0
    received_bytes: int = 0
    encoded_images: int = 0


class SiteLearner:
    """The `Learner` of a site. `traffic()` returns the MQTT payload bytes sent and received so far."""

    def __init__(
        self,
        site: str,
        federation: str,
        bundle: Bundle,
        features: SiteFeatures,
        state: SiteState,
        files: LearnerFiles,
        threads: int,
        ensemble: str,
        traffic: Callable[[], tuple[int, int]],
        floors: Floors = DEFAULT_FLOORS,
        privacy: PrivacySettings = NO_DEMAND,
        answers: AssuranceSettings = DEFAULT_SETTINGS,
        activation: ActivationRule = DEFAULT_RULE,
        shared_metrics: SharedMetrics | None = None,
    ) -> None:
        self._shared_metrics = shared_metrics
        self._site = site
        self._federation = federation
        self._bundle = bundle
        self._features = features
        self._state = state
        self._files = files
        self._threads = threads
        self._ensemble = ensemble
        self._traffic = traffic
        self._floors = floors
        parts = {"train": features.train, "validation": features.validation, "test": features.test}
        self._guard = Guard(
            files.heads,
            bundle,
            features.validation,
            files.key,
            features.train,
            answers,
            activation,
            {name: len(part.labels) for name, part in parts.items()},
        )
        self._train_seconds: dict[int, float] = {}
        self._residuals = ResidualWatch("update")
        self._counted = _Counted(encoded_images=encoded_images())
        self._reference = reference_of(bundle)
        self._private = PrivateLearning(
            privacy, state.releases, features, bundle, self._reference, self._settings, threads
        )
        self.samples = len(features.train.labels)

    @property
    def verdict(self) -> VersionRecord | None:
        """What became of the newest version here; None before the first."""
        return self._guard.verdict

    def private_specification(self, plan: Plan, classes: int | None = None) -> HeadSpecification:
        """Return the specification of what the site keeps: the private head, and Adam's memory if asked for.

        It is for embeddings of the plan's size where `classes` is given, else for this bundle's. Raises
        InvalidInputError for a method that is unknown or cannot train, and for an unknown training setting.
        """
        sizes = self._sizes if classes is None else (plan.embedding_size, classes)
        return private_state_specification(plan.method, *sizes, self._settings(plan))

    def initial_private_head(self, plan: Plan) -> NamedArrays:
        """Return what the site keeps before the first round."""
        return initial_private_state(plan.method, *self._sizes, self._settings(plan), plan.seed, self._site)

    @property
    def _sizes(self) -> tuple[int, int]:
        manifest = self._bundle.manifest
        return manifest.embedding_size, len(manifest.class_names)

    def train(
        self, plan: Plan, shared: NamedArrays, private: NamedArrays, round_number: int
    ) -> tuple[NamedArrays, NamedArrays]:
        """Return both heads after one local round on the cached embeddings; the encoder does not run.

        Under privacy the shared head is that of a private release, or stays as it was where there is none;
        the private head learns beside it.
        """
        started = time.monotonic()
        validation = self._features.validation.embeddings, self._features.validation.labels
        target = self._target(plan, round_number)
        settings, release = self._settings(plan), None
        if self._private.asked(plan):
            release = self._private.release(plan, shared, round_number, target) or shared
            settings = settings.of_private_head()
        with (
            faults_of_others(plan.method),
            progress_lines(f"round {round_number} of {plan.rounds}: training, epochs") as progress,
        ):

            def train(embeddings: Floats, labels: Labels, groups: Labels | None) -> TrainedHeads:
                return train_round(
                    plan.method,
                    shared,
                    private,
                    embeddings,
                    labels,
                    self._bundle.class_embeddings,
                    self._bundle.manifest.logit_scale,
                    settings,
                    round_number=round_number,
                    seed=derive_seed(
                        plan.seed, site=self._site, round_number=round_number, purpose="training"
                    ),
                    validation=validation,
                    target=target,
                    groups=groups,
                    threads=self._threads,
                    progress=progress,
                )

            own = self._features.train
            if release is None:
                trained = train_within(
                    self._floors, plan.method, own.embeddings, own.labels, train, own.groups
                )
            else:
                trained = replace(train(own.embeddings, own.labels, own.groups), shared=release)
        # Of the newest round only: a site may live for a million of them.
        self._train_seconds = {round_number: time.monotonic() - started}
        log.info(
            "round %d of %d: trained on %d images in %.2f s, loss %.3f",
            round_number,
            plan.rounds,
            self.samples,
            self._train_seconds[round_number],
            trained.loss,
        )
        return trained.shared, trained.private

    def _target(self, plan: Plan, round_number: int) -> npt.NDArray[np.float32] | None:
        """Return what an adapting method adapts to; None for the others, and without a reference set."""
        if not site_method(plan.method).adapts:
            return None
        if self._reference is None:
            if not self._train_seconds:
                log.info("the bundle has no reference set: %s trains without adaptation", plan.method)
            return None
        seed = derive_seed(plan.seed, site=self._site, round_number=round_number, purpose="reference")
        return target_embeddings(self._reference, SURROGATES, seed)

    def _settings(self, plan: Plan) -> TrainingSettings:
        if unknown := sorted(plan.training.keys() - set(TrainingSettings.__struct_fields__)):
            raise InvalidInputError(
                f"this version does not know the run's training setting {', '.join(map(repr, unknown))[:200]}"
            )
        return convert(plan.training, TrainingSettings, "the plan", table="training")

    def contribution(self, plan: Plan) -> Contribution:
        """Return how many images an update stands for, and whether a floor keeps it here."""
        if (private := self._private.side(plan)) is not None:
            # A floor would tell on which side of it the site is; the noise protects the few as well.
            return Contribution(private.samples, private.cannot)
        labels = self._features.train.labels
        samples = int(self._floors.shared_images(plan.method, labels).sum())
        return Contribution(samples, self._floors.reason_to_keep(plan.method, labels))

    def privacy(self, plan: Plan) -> PrivateSide | None:
        """Return what this site's updates keep to in a run; None where nobody asks for privacy."""
        return self._private.side(plan)

    def compressed(self, round_number: int, compressed: Compressed) -> None:
        """Log what the round's update leaves to later rounds; the journal gets its share."""
        self._residuals.note(round_number, compressed)

    def installed(
        self, plan: Plan, version: int, shared: NamedArrays, private: NamedArrays, finished: bool
    ) -> None:
        """Evaluate a new version on the validation split, let it answer or not, and write the journal."""
        rule = ENTROPY if self._ensemble == "entropy" else ensemble_of(plan.method)
        private_head = self._private_of_version(plan, shared, head_of(private)) or None
        heads = Heads(plan.method, shared, private_head, self._federation, self._site, version, rule)
        if self._ensemble == "calibrated":
            heads = self._calibrated(heads)
        is_known = self._state.has_report(version)
        # A later run begins untrained: until its first round, the heads of the one before answer. Of a
        # version that is known the private head may be trained further by now, for the next.
        is_version = finished or (version > 0 and not is_known)
        answering = self._guard.judge(heads, plan.number, plan.identity.hex(), is_version=is_version)
        if not is_known:
            figures = self._figures(heads, self._features.validation)
            # Before the journal, by which a version is known: a kill between them loses nothing.
            self._share(plan, version, figures)
            accuracy = {name: round(metrics.accuracy, 6) for name, metrics in figures.items()}
            self._state.write_journal(version, self._report(version, accuracy))
            log.info("version %d: accuracy on validation: %s", version, _in_words(accuracy))
        if finished:
            figures = self._figures(answering, self._features.test)
            report = {name: metrics.as_dict() | self._reservation() for name, metrics in figures.items()}
            test = self._features.test
            if assurance := evaluate_assurance(answering, self._bundle, test.embeddings, test.labels):
                name = "ensemble" if answering and not answering.zero_shot_answers else "zero_shot"
                report[name]["assurance"] = assurance.as_dict()
            encoded = msgspec.json.format(msgspec.json.encode(report), indent=2)
            write_new_file(self._files.evaluation, encoded + b"\n", private=True)
            accuracy = {name: metrics.accuracy for name, metrics in figures.items()}
            log.info(
                "federation finished at version %d; %s answers: accuracy on test: %s",
                version,
                "zero-shot"
                if answering is None or answering.zero_shot_answers
                else f"version {answering.version}",
                _in_words(accuracy),
            )

    def _share(self, plan: Plan, version: int, figures: dict[str, Metrics]) -> None:
        """Note what the centre is told of a version, and of what the guard decided."""
        if self._shared_metrics is None:
            return
        record = self._guard.verdict
        is_judged = record is not None and (record.run, record.version) == (plan.number, version)
        verdict = record.verdict if record is not None and is_judged else "not judged"
        active = AnsweringVersion(self._files.heads.parent).active_version(plan)
        parts = self._features.train, self._features.validation, self._features.test
        train, validation, test = (len(part.labels) for part in parts)
        self._shared_metrics.note(plan, version, verdict, active, (train, validation, test), figures)

    def _private_of_version(self, plan: Plan, shared: NamedArrays, trained: NamedArrays) -> NamedArrays:
        own, manifest = self._features.train, self._bundle.manifest
        if not adapts_to_versions(plan.method):
            return trained
        # What is held back, or hidden in noise, cannot be taken out of what others say.
        held_back = self._private.asked(plan) or self._floors.reason_to_keep(plan.method, own.labels)
        shown = self._floors.shared_images(plan.method, own.labels)
        images = OwnImages.of(own.embeddings, own.labels, own.groups, shown & (not held_back))
        seed = derive_seed(plan.seed, site=self._site, purpose="version head")
        made = adapted(plan.method, shared, images, self._bundle.class_embeddings, manifest.logit_scale, seed)
        log.info("this site's own head: %s (%s)", made.kept, made.reason)
        return made.private

    def _reservation(self) -> dict[str, int]:
        """Return how many test images have a look-alike or patient-mate in training, if any have."""
        leak = self._features.leak
        return {"images_with_look_alikes_in_training": leak.test} if leak is not None and leak.test else {}

    def _calibrated(self, heads: Heads) -> Heads:
        """Fit the ensemble's weight on the validation split; without one the method's rule stays."""
        part = self._features.validation
        if heads.private is None or len(part.labels) == 0:
            return heads
        found = predict(heads, self._bundle, part.embeddings)
        assert found.private is not None
        return replace(heads, ensemble=fit_calibrated(found.shared, found.private, part.labels))

    def _figures(self, heads: Heads | None, part: LabelledFeatures) -> dict[str, Metrics]:
        """Return the metrics on a part; none when a small site's part has no images."""
        return evaluate(heads, self._bundle, part.embeddings, part.labels) if len(part.labels) else {}

    def _report(self, version: int, accuracy: dict[str, float]) -> dict[str, Any]:
        before, self._counted = self._counted, _Counted(*self._traffic(), encoded_images())
        return {
            "installed_at": time.time(),
            "uplink_bytes": self._counted.sent_bytes - before.sent_bytes,
            "downlink_bytes": self._counted.received_bytes - before.received_bytes,
            "encoder_images": self._counted.encoded_images - before.encoded_images,
            "train_seconds": round(self._train_seconds.get(version, 0.0), 4),
            # None: no update of this version was made since the process began.
            "residual_share": self._residuals.shares.get(version),
            "accuracy": accuracy,
        }


def _in_words(accuracy: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value:.3f}" for name, value in accuracy.items())
