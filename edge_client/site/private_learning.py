"""Privacy at a site: which terms are in force, whether it can keep to them, and a round's private release.

The release is all that the aggregator ever learns of the training images: what is trained beside it, and the
private head, stay.
"""

import hashlib
from collections.abc import Callable

import msgspec

from fedmedclip.edge_client.features.labelled import SiteFeatures
from fedmedclip.edge_client.features.references import Reference
from fedmedclip.edge_client.learning.method import ClosedFormMethod, TrainedMethod, trainable_method
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import Floats
from fedmedclip.edge_client.privacy.accounting import (
    GaussianSteps,
    noise_of_count,
    noise_of_one_among,
    noise_of_steps,
    require_accountant,
)
from fedmedclip.edge_client.privacy.mechanism import epsilon_of
from fedmedclip.edge_client.privacy.noise import SecretNoise, release_key
from fedmedclip.edge_client.privacy.units import ProtectedUnits, protected_units
from fedmedclip.edge_client.site.budget import Budget
from fedmedclip.edge_client.site.ledger import Ledger, Release
from fedmedclip.edge_client.site.roles import PrivateSide
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays, head_digest
from fedmedclip.protocol.heads.shared_heads import usual_releases
from fedmedclip.protocol.messages import Plan, PrivacyTerms
from fedmedclip.protocol.privacy import PrivacySettings, stricter

UNKNOWN_NUMBER = 1
"""What a site says of its number of images before a noisy number was released in a run."""


class PrivateLearning:
    """A site's private side. `own` is what its operator demands beside the plan's terms."""

    def __init__(
        self,
        own: PrivacySettings,
        ledger: Ledger,
        features: SiteFeatures,
        bundle: Bundle,
        reference: Reference | None,
        settings: Callable[[Plan], TrainingSettings],
    ) -> None:
        self._own = own
        self._ledger = ledger
        self._budget = Budget(ledger, own)
        self._features = features
        self._bundle = bundle
        self._reference = reference
        self._settings = settings
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
        return PrivateSide(self._told(plan) or UNKNOWN_NUMBER, cannot, withheld, release)

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
        terms, units = self._terms(plan), self._units(plan)
        digest = self._digest(plan, terms, units, shared, round_number)
        known = next((found for found in self._ledger.releases() if found.digest == digest), None)
        steps = known.steps if known else self._steps(plan)
        if known is None and self._budget.refusal(plan.number, steps, terms):
            return None
        noise = SecretNoise(release_key(self._ledger.secret(), digest))
        if isinstance(trainable_method(plan.method), ClosedFormMethod):
            trained, images = self._statistics(plan, terms, units, noise)
        else:
            images = self._count(plan, units, steps, noise)
            trained = self._gradients(
                plan, terms, units, shared, round_number, target, steps[-1], images, noise
            )
        report = known.report if known else self._budget.report(plan.number, steps, terms)
        self._newest = Release(digest, plan.number, round_number, steps, images, report)
        return trained

    def _terms(self, plan: Plan) -> PrivacyTerms:
        """Return the terms in force."""
        found = stricter(plan.privacy, self._own.terms(usual_releases(plan.method, plan.rounds)))
        assert found is not None
        return found

    def _steps(self, plan: Plan) -> tuple[GaussianSteps, ...]:
        """Return how the next update of a run is released: first the number of images, where none is told.

        Raises InvalidInputError for a training setting that is unknown.
        """
        terms = self._terms(plan)
        if isinstance(trainable_method(plan.method), ClosedFormMethod):
            return (GaussianSteps(noise_of_one_among(terms.epsilon, terms.delta, terms.releases)),)
        settings, rate = self._settings(plan), terms.sampling_rate
        number = settings.steps_at(rate)
        count = GaussianSteps(noise_of_count(terms.epsilon, terms.delta))
        multiplier = noise_of_steps(terms.epsilon, terms.delta, rate, number * terms.releases, (count,))
        steps = GaussianSteps(multiplier, rate, number)
        return (count, steps) if self._told(plan) is None else (steps,)

    def _told(self, plan: Plan) -> int | None:
        """Return the noisy number of images that was released last in a run, if any was."""
        told = [release.images for release in self._ledger.releases() if release.run == plan.number]
        return told[-1] if told else None

    def _count(
        self, plan: Plan, units: ProtectedUnits, steps: tuple[GaussianSteps, ...], noise: SecretNoise
    ) -> int:
        """Return the number of images that is told with gradients: drawn with the first of a run."""
        if len(steps) == 1:
            told = self._told(plan)
            assert told is not None
            return told
        drawn = units.most_images * steps[0].noise_multiplier * float(noise.standard_normal(1)[0])
        return max(UNKNOWN_NUMBER, round(len(units.rows) + drawn))

    def _units(self, plan: Plan) -> ProtectedUnits:
        terms = self._terms(plan)
        return protected_units(self._features.train_groups, terms.unit, terms.images_per_patient)

    def _digest(
        self,
        plan: Plan,
        terms: PrivacyTerms,
        units: ProtectedUnits,
        shared: NamedArrays,
        round_number: int,
    ) -> bytes:
        """Return the digest of all that a release is made of: another where anything is another."""
        part, digest = self._features.train, hashlib.sha256()
        for value in (
            plan.identity,
            plan.method.encode(),
            str(round_number).encode(),
            msgspec.msgpack.encode((terms, self._settings(plan))),
            head_digest(shared),
            part.embeddings[units.rows].tobytes(),
            part.labels[units.rows].tobytes(),
            units.members.tobytes(),
        ):
            digest.update(len(value).to_bytes(8, "little") + value)
        return digest.digest()

    def _statistics(
        self, plan: Plan, terms: PrivacyTerms, units: ProtectedUnits, noise: SecretNoise
    ) -> tuple[NamedArrays, int]:
        method, part = trainable_method(plan.method), self._features.train
        assert isinstance(method, ClosedFormMethod)
        assert method.private_statistics is not None
        multiplier = noise_of_one_among(terms.epsilon, terms.delta, terms.releases)
        alone = msgspec.structs.replace(terms, epsilon=epsilon_of(multiplier, terms.delta))
        arrays, images = method.private_statistics(
            method.taken(part.embeddings[units.rows]),
            part.labels[units.rows],
            units.members,
            self._bundle.class_embeddings,
            alone,
            self._reference,
            noise,
        )
        return arrays, max(UNKNOWN_NUMBER, images)

    def _gradients(
        self,
        plan: Plan,
        terms: PrivacyTerms,
        units: ProtectedUnits,
        shared: NamedArrays,
        round_number: int,
        target: Floats | None,
        steps: GaussianSteps,
        images: int,
        noise: SecretNoise,
    ) -> NamedArrays:
        from fedmedclip.edge_client.learning.private_round import PrivateSteps, train_shared_privately

        method, part = trainable_method(plan.method), self._features.train
        assert isinstance(method, TrainedMethod)
        rate, multiplier = steps.sampling_rate, steps.noise_multiplier
        return train_shared_privately(
            method,
            shared,
            part.embeddings[units.rows],
            part.labels[units.rows],
            self._bundle.class_embeddings,
            self._bundle.manifest.logit_scale,
            self._settings(plan),
            PrivateSteps(units.members, rate, terms.clip_norm, multiplier, images, noise),
            round_number=round_number,
            target=target,
        )
