"""A site under privacy: what it tells, what it spends, and when it stops, killed or not."""

import re
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.method import by_cosines
from fedmedclip.edge_client.learning.method import ClosedFormMethod
from fedmedclip.edge_client.privacy.mechanism import noise_multiplier
from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.learner import LearnerFiles, SiteLearner
from fedmedclip.edge_client.site.plans import reason_not_to
from fedmedclip.edge_client.site.roles import Identity
from fedmedclip.edge_client.site.spending import spending_lines, spending_of
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.codecs.error_feedback import apply_delta
from fedmedclip.protocol.heads import methods
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import Abstain, Announcement, Join, Plan, PrivacyTerms, Update
from fedmedclip.protocol.objects import refer_to
from fedmedclip.protocol.privacy import NO_DEMAND, PrivacySettings
from tests.edge_client.heads.heads_examples import CLASSES, SIZE, example_bundle, example_data
from tests.edge_client.site.test_agent import FEDERATION, KEY, LARGE, SITE_KEY, Site
from tests.simulation.federation.loopback import BUNDLE as DIGEST

IMAGES = 47
BUNDLE = example_bundle(digest=DIGEST)
TERMS = PrivacyTerms(8.0, 1e-5, "image", 4, 8, 1.0, 0.5, 2)
PLAN = Plan(
    b"i" * 16, KEY.public_key, "linear-probe", DIGEST, SIZE, 4, 11, "int8", "int8", {}, 1, 1, False, 1e3,
    None, TERMS,
)  # fmt: skip
IDENTITY = Identity(FEDERATION, "site-a", SITE_KEY.public_key, DIGEST, None, CLASSES, SIZE)


class Features:
    """Embeddings of a site, as they come from its feature store; four images a patient."""

    leak = None

    def __init__(self, images=IMAGES, patients_named=True):
        embeddings, labels, _ = example_data(images)
        self.train = self.validation = self.test = LabelledFeatures(embeddings, labels)
        self.train_groups = np.arange(images) // 4
        self.patients_named = patients_named


@dataclass
class Hospital(Site):
    """A site with a real learner."""

    identity: Identity = IDENTITY
    terms: PrivacyTerms | None = TERMS
    own: PrivacySettings = NO_DEMAND
    method: str = "linear-probe"

    def __post_init__(self):
        self.plan = msgspec.structs.replace(PLAN, method=self.method, privacy=self.terms)
        self.features = Features()
        self.start()
        self.begin()

    def begin(self):
        self.specification = shared_head_specification(self.method, SIZE, CLASSES)
        self.head, self.version = initial_shared_head(self.method, SIZE, 11, CLASSES), 0

    def start(self):
        self.state = SiteState(self.folder / "site.db", durable=False)
        files = LearnerFiles(self.folder / "heads.safetensors", self.folder / "evaluation.json")
        self.learner = SiteLearner(
            "site-a", FEDERATION, BUNDLE, self.features, self.state, files, 1, "method", lambda: (0, 0),
            privacy=self.own,
        )  # fmt: skip
        self.agent = SiteAgent(self.identity, self.state, self.learner, self.limit)
        self.agent.connected()

    def announcement(self, delta=0.01):
        values = {name: np.full_like(array, delta) for name, array in self.head.items()}
        encoded = encode_head(codec_named("lossless"), values, self.specification).data
        self.head = apply_delta(self.head, values, self.specification)
        self.version += 1
        finished = self.version >= self.plan.rounds
        return Announcement(self.version, head_digest(self.head), finished, refer_to(encoded, LARGE), None)

    def mark(self):
        update = self.state.outgoing_update()
        payload = refer_to(update.payload, self.limit)
        return Update(update.round_number, update.samples, payload, update.attempt, update.privacy).mark

    def kill(self):
        self.state.close()
        self.start()
        self.agent.tick(0.0)
        self.join()

    def said(self, now=0.0):
        """What is said of a round in one tick: an Update, an Abstain, or nothing."""
        return next((m for m in self.agent.tick(now) if isinstance(m, Update | Abstain)), None)

    def round(self, now=0.0):
        """Play a round: what the site says, settled, and the next version."""
        said = self.said(now)
        if isinstance(said, Update):
            self.settle(said.round_number, now=now)
        self.advance(now)
        return said


def test_no_exact_number_of_images_leaves(tmp_path):
    site = Hospital(tmp_path)
    (join,) = (m for m in site.hear_plan() if isinstance(m, Join))
    assert join.samples == 1
    site.admit()
    site.hear_newest()
    first, second = site.round(), site.round()
    assert first.samples == second.samples, "one noisy number is released in a run"
    assert abs(first.samples - IMAGES) < 6 * 4 * noise_multiplier(8.0, 1e-5)
    site.agent.connected()
    (join,) = (m for m in site.agent.tick(0.0) if isinstance(m, Join))
    assert join.samples == first.samples
    draws = set()
    for other in range(3):
        (tmp_path / str(other)).mkdir()
        site = Hospital(tmp_path / str(other))
        site.join()
        draws.add(site.said().samples)
    assert len(draws) > 1, "and it is noisy"


def test_an_update_says_what_it_costs_and_it_is_kept_among_the_releases(tmp_path):
    site = Hospital(tmp_path)
    site.join()
    first, second = site.round().privacy, site.round().privacy
    assert 0 < first.cost == first.spent < second.spent <= 8.0
    assert second.spent > 7.5, "the budget is spent by its last release"
    assert (second.epsilon, second.delta) == (8.0, 1e-5)
    spending = spending_of(site.state.releases, NO_DEMAND)
    assert [release.cost for release in spending.runs[0].releases] == [first.cost, second.cost]
    assert spending.spent == second.spent
    assert re.search(r"run 1: 2 updates, epsilon 7.\d+ of 8 at delta 1e-05", spending_lines(spending)[0])


def test_sending_stops_when_the_budget_is_spent_and_the_run_goes_on(tmp_path):
    site = Hospital(tmp_path)
    site.join()
    assert all(isinstance(site.round(), Update) for _ in range(2))
    third = site.said()
    assert isinstance(third, Abstain)
    assert "the privacy budget of this run is spent: epsilon 7." in third.reason
    assert str(IMAGES) not in third.reason
    assert site.state.load().trained_round == 3
    site.kill()
    assert site.said() == third
    site.advance()
    assert site.said().round_number == 4
    site.advance()
    assert site.agent.finished
    assert len(site.state.releases.listing()) == 2


def test_a_killed_site_sends_the_same_bytes_and_pays_once(tmp_path):
    site = Hospital(tmp_path)
    site.join()
    sent = site.said()
    site.kill()
    assert site.said() == sent
    assert len(site.state.releases.listing()) == 1
    site.settle(1, accepted=False)
    again = site.said(100.0)
    assert (again.payload, again.samples, again.attempt) == (sent.payload, sent.samples, 1)
    assert again.privacy == sent.privacy
    assert len(site.state.releases.listing()) == 1


def test_killed_before_it_stored_anything_it_makes_the_same_again_and_other_data_have_other_noise(tmp_path):
    site = Hospital(tmp_path)
    site.join()
    once = site.learner.train(site.plan, site.head, {}, 1)[0]
    site.kill()
    again = site.learner.train(site.plan, site.head, {}, 1)[0]
    assert all(np.array_equal(once[name], again[name]) for name in once)
    site.features = Features(IMAGES - 1)
    site.kill()
    other = site.learner.train(site.plan, site.head, {}, 1)[0]
    assert not any(np.array_equal(once[name], other[name]) for name in once)
    assert site.state.releases.listing() == []


@pytest.mark.slow
def test_a_round_that_is_made_again_from_other_data_is_paid_again(tmp_path):
    site = Hospital(tmp_path, terms=msgspec.structs.replace(TERMS, releases=3))
    site.join()
    sent = site.said()
    site.features = Features(IMAGES - 1)
    site.kill()
    site.settle(1, accepted=False)
    again = site.said(100.0)
    assert again.payload != sent.payload
    assert again.samples == sent.samples
    assert again.privacy.spent > sent.privacy.spent


def test_a_method_without_private_statistics_sends_nothing(tmp_path):
    site = Hospital(tmp_path, method="whitened-memory")
    site.join()
    said = site.said()
    assert isinstance(said, Abstain)
    assert "'whitened-memory' has no private form of its statistics" in said.reason
    assert site.state.load().trained_round == 1
    assert site.state.releases.listing() == []


@pytest.mark.slow
def test_the_operator_s_own_demand_counts_where_the_plan_asks_for_nothing_and_over_all_runs(tmp_path):
    site = Hospital(tmp_path, terms=None, own=PrivacySettings(epsilon=2.0, releases=1))
    site.join()
    first = site.round()
    assert (first.privacy.epsilon, first.privacy.spent) == (2.0, pytest.approx(2.0, rel=0.05))
    assert isinstance(site.said(), Abstain)
    site.plan = msgspec.structs.replace(site.plan, identity=b"j" * 16, number=2)
    site.begin()
    site.join()
    said = site.said()
    assert isinstance(said, Abstain)
    assert "the privacy budget that this site has for all runs is spent" in said.reason


def test_a_patient_has_a_name_or_the_site_sends_nothing(tmp_path):
    patients = msgspec.structs.replace(TERMS, unit="patient")
    site = Hospital(tmp_path, terms=patients)
    assert site.learner.privacy(site.plan).cannot == ""
    site.features = Features(patients_named=False)
    site.state.close()
    site.start()
    site.join()
    assert "not every training image here names its patient" in site.said().reason


def test_why_a_site_cannot_train_tells_no_number_under_privacy(tmp_path):
    site = Hospital(tmp_path)
    site.learner.samples = 1
    assert reason_not_to(site.plan, IDENTITY, site.learner) == "training needs at least 2 labelled images"


def test_private_statistics_are_given_what_counts_and_a_release_s_own_budget(tmp_path, monkeypatch):
    seen = []

    def private_statistics(embeddings, labels, groups, captions, scale, terms, reference, noise):
        seen.append((embeddings.shape, len(labels), len(groups), captions.shape, terms, reference))
        sigma = noise_multiplier(terms.epsilon, terms.delta)
        return {"sums": noise.normal(0.0, sigma, (SIZE,)).astype(np.float32)}, 40

    described = ClosedFormMethod(
        name="sums",
        shared_arrays=lambda size, classes: HeadSpecification((TensorSpecification("sums", (size,)),)),
        sends_statistics=True,
        shared_pass=by_cosines(lambda layers, shared, embeddings: embeddings),
        fit=lambda shared, *_: (shared, {}, 0.0),
        private_statistics=private_statistics,
    )
    monkeypatch.setattr(methods, "load_from_outside", lambda *_: described)
    methods.method_named.cache_clear()
    site = Hospital(tmp_path, method="sums", terms=msgspec.structs.replace(TERMS, unit="patient", releases=2))
    site.features.train_groups[:9] = 0
    site.join()
    update = site.round()
    # Of the patient with nine images four count, and three of the two who share the next ones.
    (shape, labels, groups, captions, terms, reference) = seen[0]
    assert shape == (labels, SIZE) == (groups, SIZE)
    assert labels == IMAGES - 5
    assert (captions, reference, update.samples) == ((CLASSES, SIZE), None, 40)
    assert terms.epsilon < 8.0
    assert isinstance(site.round(), Update)
    assert isinstance(site.said(), Abstain)
    assert site.state.releases.listing()[1].report.spent == pytest.approx(8.0, rel=1e-6)


def test_the_private_head_learns_on_and_nothing_of_it_reaches_the_shared_one(tmp_path):
    site = Hospital(tmp_path, method="fedmedclip")
    site.join()
    specification = site.learner.private_specification(site.plan)
    first = site.learner.initial_private_head(site.plan)
    other = specification.initial(5)
    shared, private = site.learner.train(site.plan, site.head, first, 1)
    again, _ = site.learner.train(site.plan, site.head, other, 1)
    assert all(np.array_equal(shared[name], again[name]) for name in shared)
    assert not np.array_equal(private["classifier.weight"], first["classifier.weight"])
    assert not np.array_equal(shared["first.weight"], site.head["first.weight"])
