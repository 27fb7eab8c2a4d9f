"""Privacy at a site: which terms are in force, whether it can keep to them, and a round's private release.

The release is all that the aggregator ever learns of the training images: what is trained beside it, and the
private head, stay.
"""

import hashlib
from collections.abc import Callable

import msgspec

from fedmedclip.edge_client.features.labelled import SiteFeatures
from fedmedclip.edge_client.features.references import SURROGATES, Reference, target_embeddings
from fedmedclip.edge_client.learning.method import TrainedMethod, trainable_method
from fedmedclip.edge_client.learning.private_release import (
    LEAST_NUMBER,
    Floats,
    TrainingImages,
    make_release,
    steps_of_release,
)
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.privacy.accounting import GaussianSteps, require_accountant
from fedmedclip.edge_client.privacy.noise import SecretNoise, release_key
from fedmedclip.edge_client.site.budget import Budget
from fedmedclip.edge_client.site.releases import Release, Releases
from fedmedclip.edge_client.site.roles import PrivateSide
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays, head_digest
from fedmedclip.protocol.heads.shared_heads import usual_releases
from fedmedclip.protocol.messages import Plan, PrivacyTerms
from fedmedclip.protocol.privacy import PrivacySettings, stricter


class PrivateLearning:
    """A site's private side. `own` is what its operator demands beside the plan's terms."""

    def __init__(
        self,
        own: PrivacySettings,
        releases: Releases,
        features: SiteFeatures,
        bundle: Bundle,
        reference: Reference | None,
        settings: Callable[[Plan], TrainingSettings],
        threads: int,
    ) -> None:
        self._own = own
        self._releases = releases
        self._budget = Budget(releases, own)
        self._features = features
        self._bundle = bundle
        self._reference = reference
        self._settings = settings
        self._threads = threads
        self._newest: Release | None = None

    def asked(self, plan: Plan) -> bool:
        """Whether anybody asks for privacy in this run."""
        return plan.privacy is not None or self._own.epsilon is not None

    def side(self, plan: Plan) -> PrivateSide | None:
        """Return what the centre is told of this site under privacy; None where nobody asks for it."""
        if not self.asked(plan):
            return None
        release = self._newest if self._newest is not None and self._newest.run == plan.number else None
        cannot = self.cannot(plan)
        withheld = cannot or self._budget.refusal(plan.number, self._steps(plan), self._terms(plan))
        return PrivateSide(self._told(plan) or LEAST_NUMBER, cannot, withheld, release)

    def cannot(self, plan: Plan) -> str:
        """Return why this site cannot keep to the terms of a run at all; empty where it can.

        No reason tells a number of images.
        """
        try:
            method, terms = trainable_method(plan.method), self._terms(plan)
            if isinstance(method, TrainedMethod):
                require_accountant()
            elif method.private_statistics is None:
                raise InvalidInputError(
                    f"method {plan.method!r} has no private form of its statistics; the coordinator must "
                    "choose another"
                )
            if terms.unit == "patient" and not self._features.patients_named:
                raise InvalidInputError(
                    'the unit is "patient", and not every training image here names its patient; name them '
                    "in groups.csv"
                )
            self._steps(plan)
        except InvalidInputError as error:
            return f"privacy is asked for, and cannot be kept: {error}"
        return ""

    def release(
        self, plan: Plan, shared: NamedArrays, round_number: int, target: Floats | None
    ) -> NamedArrays | None:
        """Return the private shared head of a round, to be sent; None where none must be.

        `shared` and `target` as of `train_round`. What it costs is in `side` from then on, for whoever stores
        the update. Raises HeadError when training diverges.
        """
        self._newest = None
        if self.cannot(plan):
            return None
        part, terms = self._features.train, self._terms(plan)
        images = TrainingImages(
            part.embeddings,
            part.labels,
            self._features.train_groups,
            self._bundle.class_embeddings,
            self._bundle.manifest.logit_scale,
            None if self._reference is None else target_embeddings(self._reference, SURROGATES, seed=0),
        )
        digest = self._digest(plan, terms, images, shared, round_number)
        known = next((found for found in self._releases.listing() if found.digest == digest), None)
        steps = known.steps if known else self._steps(plan)
        if known is None and self._budget.refusal(plan.number, steps, terms):
            return None
        trained, told = make_release(
            plan.method,
            shared,
            images,
            terms,
            self._settings(plan),
            steps,
            SecretNoise(release_key(self._releases.secret(), digest)),
            round_number=round_number,
            # With more than one kind of steps the number is drawn with them, the same each time.
            told=self._told(plan) if len(steps) == 1 else None,
            target=target,
            threads=self._threads,
        )
        report = known.report if known else self._budget.report(plan.number, steps, terms)
        self._newest = Release(digest, plan.number, round_number, steps, told, report)
        return trained

    def _terms(self, plan: Plan) -> PrivacyTerms:
        """Return the terms in force."""
        found = stricter(plan.privacy, self._own.terms(usual_releases(plan.method, plan.rounds)))
        assert found is not None
        return found

    def _steps(self, plan: Plan) -> tuple[GaussianSteps, ...]:
        """Return how the next update of a run is released. Raises InvalidInputError as `steps_of_release`."""
        told = self._told(plan) is not None
        return steps_of_release(plan.method, self._terms(plan), self._settings(plan), told=told)

    def _told(self, plan: Plan) -> int | None:
        """Return the noisy number of images that was released last in a run, if any was."""
        told = [release.images for release in self._releases.listing() if release.run == plan.number]
        return told[-1] if told else None

    def _digest(
        self,
        plan: Plan,
        terms: PrivacyTerms,
        images: TrainingImages,
        shared: NamedArrays,
        round_number: int,
    ) -> bytes:
        """Return the digest of all that a release is made of: another where anything is another."""
        units, digest = images.units(terms), hashlib.sha256()
        for value in (
            plan.identity,
            plan.method.encode(),
            str(round_number).encode(),
            msgspec.msgpack.encode((terms, self._settings(plan))),
            head_digest(shared),
            images.embeddings[units.rows].tobytes(),
            images.labels[units.rows].tobytes(),
            units.members.tobytes(),
        ):
            digest.update(len(value).to_bytes(8, "little") + value)
        return digest.digest()
