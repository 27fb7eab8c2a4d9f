"""What a site shares of its versions: when, how coarse, and what never."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.heads.metrics import measure
from fedmedclip.edge_client.inference.evaluation import evaluate
from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.learner import LearnerFiles, SiteLearner
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.edge_client.site.shared_metrics import (
    ACTIVATED,
    LOOK_AGAIN_SECONDS,
    SET_ASIDE,
    coarse,
    pooled_recall,
)
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.messages import VERDICTS, Announcement, PrivacyTerms, Secure
from tests.edge_client.heads.heads_examples import CLASSES
from tests.edge_client.site.conftest import PLAN
from tests.edge_client.site.test_agent import Site
from tests.edge_client.site.test_privacy import BUNDLE, IMAGES, Features
from tests.edge_client.site.test_privacy import PLAN as LEARNERS_PLAN
from tests.simulation.federation.loopback import FEDERATION, measured

SHARING = PolicySettings()
PRIVATE = msgspec.structs.replace(PLAN, privacy=PrivacyTerms(8.0, 1e-5, "image", 1, 8, 1.0, 0.25, 3))
SUMMED = msgspec.structs.replace(PLAN, secure=Secure("subspace", 8, 1000, 0.25, 3))
NEXT_RUN = msgspec.structs.replace(PLAN, identity=b"n" * 16, number=2)


class Answers:
    """Which version answers, as a test says."""

    def __init__(self, version):
        self.version, self.asked = version, 0

    def active_version(self, plan):
        self.asked += 1
        return self.version


def note(shared, version, plan=PLAN, images=(400, 100, 50), share=0.76, validation=100):
    figures = {name: measured(share, validation) for name in ("zero_shot", "shared", "ensemble")}
    shared.note(plan, version, "activated", version, images, figures)


def said(shared, now=0.0, plan=PLAN):
    found = shared.due(plan, now)
    assert len(found) <= 1
    return found[0] if found else None


def test_each_version_is_said_once(state):
    shared = state.shared_metrics(SHARING, "0.3.0")
    assert said(shared) is None
    for version in (1, 2):
        note(shared, version)
        metrics = said(shared)
        assert (metrics.version, metrics.number, metrics.active, metrics.verdict) == (version, 0, version, 1)
        assert (metrics.train_images, metrics.validation_images, metrics.test_images) == (400, 100, 50)
        assert metrics.ensemble.accuracy == metrics.ensemble.balanced_accuracy == 152
        assert metrics.private is None
        assert metrics.software == "0.3.0"
        assert all(said(shared, now) is None for now in (0.0, 60.0, 3600.0))


def test_it_is_said_again_when_another_version_answers_and_looked_for_seldom(state):
    answers = Answers(1)
    shared = state.shared_metrics(SHARING, "0.3.0", active=answers)
    note(shared, 2)
    first = said(shared)
    assert (first.active, first.number) == (1, 0)
    for now in range(int(LOOK_AGAIN_SECONDS)):
        assert said(shared, float(now)) is None
    assert answers.asked == 1
    answers.version = 2
    again = said(shared, 2 * LOOK_AGAIN_SECONDS)
    assert again == msgspec.structs.replace(first, active=2, number=1)
    answers.version = None
    assert said(shared, 4 * LOOK_AGAIN_SECONDS).number == 2
    assert said(shared, 6 * LOOK_AGAIN_SECONDS) is None


@pytest.mark.parametrize("confirmed", [True, False])
def test_after_a_kill_only_what_the_broker_may_not_have_is_said_again(tmp_path, state, confirmed):
    shared = state.shared_metrics(SHARING, "0.3.0", active=Answers(1))
    note(shared, 1)
    metrics = said(shared)
    shared.handed_over(17)
    shared.published(17 if confirmed else 16)
    killed = SiteState(tmp_path / "site.db")
    try:
        assert said(killed.shared_metrics(SHARING, "0.3.0", active=Answers(1))) == (
            None if confirmed else metrics
        )
        other = said(killed.shared_metrics(SHARING, "0.3.0", active=Answers(0)))
        assert other == msgspec.structs.replace(metrics, active=0, number=1)
    finally:
        killed.close()


def test_what_was_noted_before_a_kill_is_said_after_it(tmp_path, state):
    note(state.shared_metrics(SHARING, "0.3.0"), 1)
    killed = SiteState(tmp_path / "site.db")
    try:
        assert said(killed.shared_metrics(SHARING, "0.3.0")).version == 1
    finally:
        killed.close()


def test_damage_costs_the_figures_of_a_version_and_nothing_else(tmp_path, state):
    note(state.shared_metrics(SHARING, "0.3.0"), 1)
    with state._database.transaction() as database:
        database.execute("UPDATE shared_metrics SET noted = x'c1'")
    shared = state.shared_metrics(SHARING, "0.3.0")
    assert said(shared) is None
    note(shared, 2)
    assert said(shared).version == 2


def test_nothing_is_shared_against_the_policy_or_where_privacy_is_asked_for(state):
    silent = state.shared_metrics(PolicySettings(share_metrics=False), "0.3.0")
    demanding = state.shared_metrics(SHARING, "0.3.0", own_privacy=True)
    sharing = state.shared_metrics(SHARING, "0.3.0")
    for shared, plan in ((silent, PLAN), (demanding, PLAN), (sharing, PRIVATE)):
        note(shared, 1, plan)
        assert said(shared, plan=plan) is None
    # Nor what was noted before the operator changed the policy.
    note(sharing, 1)
    assert said(state.shared_metrics(PolicySettings(share_metrics=False), "0.3.0")) is None
    assert said(state.shared_metrics(SHARING, "0.3.0"), plan=NEXT_RUN) is None


def test_small_numbers_are_left_out(state):
    shared = state.shared_metrics(SHARING, "0.3.0")
    note(shared, 1, images=(400, 100, 7))
    metrics = said(shared)
    assert (metrics.train_images, metrics.validation_images, metrics.test_images) == (400, 100, None)
    note(shared, 2, images=(7, 8, 7), validation=8)
    metrics = said(shared)
    assert (metrics.train_images, metrics.validation_images, metrics.test_images) == (None, 8, None)
    assert metrics.ensemble is not None
    note(shared, 3, images=(400, 7, 50), validation=7)
    metrics = said(shared)
    assert metrics.validation_images is metrics.zero_shot is metrics.shared is metrics.ensemble is None
    assert (metrics.active, metrics.verdict, metrics.train_images) == (3, ACTIVATED, 400)


def test_under_masks_no_number_of_images_is_told(state):
    shared = state.shared_metrics(SHARING, "0.3.0")
    note(shared, 1, SUMMED)
    metrics = said(shared, plan=SUMMED)
    assert metrics.train_images is metrics.validation_images is metrics.test_images is None
    assert metrics.ensemble.accuracy == 152


def test_a_software_version_of_any_length_and_script_fits(state):
    shared = state.shared_metrics(SHARING, "0.3.0+größer" + "x" * 100)
    shared.note(PLAN, 1, "set aside", 0, (9, 9, 9), {})
    assert said(shared).software == ("0.3.0+grer" + "x" * 100)[:32]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("activated", 1), ("by hand", 1), ("taken over", 1), ("set aside", 2), ("left", 2), ("waits", 3),
        ("not judged", 0), ("a word of tomorrow", 0),
    ],
)  # fmt: skip
def test_every_verdict_of_a_site_has_a_number(state, word, told):
    shared = state.shared_metrics(SHARING, "0.3.0")
    shared.note(PLAN, 1, word, 0, (9, 9, 9), {})
    assert said(shared).verdict == told
    assert told < len(VERDICTS)


def test_no_recall_of_a_few_images_is_in_the_mean():
    assert pooled_recall([(5, 10), (20, 20)], 8) == pytest.approx(0.75)
    # One image of a rare class joins the smallest of the others; its own recall would be half of the mean.
    assert pooled_recall([(5, 10), (20, 20), (1, 1), (0, 0)], 8) == pytest.approx((6 / 11 + 1) / 2)
    # Rare classes that are many together are a class of their own.
    assert pooled_recall([(5, 10), (4, 5), (0, 5)], 8) == pytest.approx((0.5 + 0.4) / 2)
    # Where all are rare it is the accuracy.
    assert pooled_recall([(4, 5), (0, 5)], 8) == pytest.approx(0.4)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(0, 1)), min_size=2, max_size=6).filter(
        lambda drawn: sum(images for images, _ in drawn) >= 8
    )
)
def test_one_image_of_any_class_never_moves_the_mean_by_more_than_one_of_eight(drawn):
    classes = [(round(share * images), images) for images, share in drawn]
    before = pooled_recall(classes, 8)
    assert 0 <= before <= 1
    for index, (right, images) in enumerate(classes):
        if right < images:
            changed = [*classes[:index], (right + 1, images), *classes[index + 1 :]]
            assert 0 < pooled_recall(changed, 8) - before <= 1 / 8 + 1e-9


@given(st.integers(8, 60), st.integers(0, 2**32 - 1))
def test_figures_are_the_measured_ones_rounded(images, seed):
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet([0.3] * 3, images).astype(np.float32)
    labels = draw.integers(0, 3, images)
    found = measure(probabilities, labels, ["a", "b", "c"])
    figures = coarse(found, 1)
    assert figures.accuracy / 200 == pytest.approx(found.accuracy, abs=0.0025 + 1e-9)
    assert figures.balanced_accuracy / 200 == pytest.approx(found.balanced_accuracy, abs=0.0025 + 1e-9)
    assert figures.calibration_error / 200 == pytest.approx(
        found.expected_calibration_error, abs=0.0025 + 1e-9
    )
    by_hand = -np.log(np.maximum(probabilities[np.arange(images), labels].astype(float), 1e-7)).mean()
    assert figures.log_loss / 100 == pytest.approx(by_hand, abs=0.005 + 1e-9)


def test_what_is_no_number_counts_as_the_worst():
    found = msgspec.structs.asdict(coarse(replace(measured(0.5), log_loss=math.nan), 8))
    assert found["log_loss"] == 2000


class SharingSite(Site):
    """A site whose agent shares what its learner notes."""

    def start(self):
        self.state = SiteState(self.folder / "site.db", durable=False)
        shared = self.learner.shared_metrics = self.state.shared_metrics(SHARING, "0.3.0")
        self.agent = SiteAgent(
            self.identity, self.state, self.learner, self.limit, self.codec, shared_metrics=shared
        )
        self.agent.connected()

    def hear_newest(self, now=0.0):
        newest = Announcement(self.version, head_digest(self.head), False, None, None)
        return self.hear(newest, now, topics.head(FEDERATION))


def kinds(sent):
    return [type(message).__name__ for message in sent]


def test_metrics_leave_when_a_version_is_here_and_its_training_waits_for_nothing(tmp_path):
    site = SharingSite(tmp_path)
    site.hear_plan()
    site.admit()
    assert kinds(site.hear_newest()) == ["Metrics"]
    assert kinds(site.agent.tick(0.0)) == ["Update"]
    site.settle(1)
    assert kinds(site.advance()) == ["Metrics"]
    assert kinds(site.agent.tick(1.0)) == ["Update"]


def test_a_site_that_is_away_says_nothing_until_it_has_joined_again(tmp_path):
    site = SharingSite(tmp_path)
    site.join()
    site.agent.tick(0.0)
    site.settle(1)
    site.agent.disconnected()
    assert kinds(site.advance()) == []
    site.agent.connected()
    assert kinds(site.agent.tick(0.0)) == ["Join"]
    assert kinds(site.admit()) == ["Metrics"]


def test_a_learner_notes_each_version_with_its_figures(tmp_path):
    plan = msgspec.structs.replace(LEARNERS_PLAN, privacy=None)
    head = {
        "classifier.weight": BUNDLE.class_embeddings,
        "classifier.bias": np.zeros(CLASSES, np.float32),
    }
    state = SiteState(tmp_path / "site.db", durable=False)
    files = LearnerFiles(tmp_path / "heads.safetensors", tmp_path / "evaluation.json")
    features = Features()

    def learner():
        shared = state.shared_metrics(SHARING, "0.3.0")
        return shared, SiteLearner(
            "site-a", "trial", BUNDLE, features, state, files, 1, "method", lambda: (0, 0),
            shared_metrics=shared,
        )  # fmt: skip

    shared, site = learner()
    site.installed(plan, 0, head, {}, False)
    site.installed(plan, 1, head, {}, False)
    metrics = said(shared, plan=plan)
    assert (metrics.version, metrics.verdict) == (1, ACTIVATED)
    assert (metrics.train_images, metrics.validation_images) == (IMAGES, IMAGES)
    heads = Heads(plan.method, head, None, "trial", "site-a", 1)
    part = features.validation
    found = evaluate(heads, BUNDLE, part.embeddings, part.labels)
    for name in ("zero_shot", "shared", "ensemble"):
        assert getattr(metrics, name) == coarse(found[name], SHARING.smallest_count)
    assert metrics.private is None
    shared, site = learner()
    site.installed(plan, 1, head, {}, False)
    assert said(shared, plan=plan) == metrics, "the broker may not have it"
    site.installed(plan, 2, {name: -array for name, array in head.items()}, {}, True)
    metrics = said(shared, plan=plan)
    assert (metrics.version, metrics.verdict, metrics.active) == (2, SET_ASIDE, 1)
    assert metrics.ensemble.accuracy < 100
    state.close()
