"""What a site cannot do in a run it says before it joins, whatever the plan asks for."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.aggregator.status import status_of
from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.method import SiteMethod
from fedmedclip.edge_client.site.learner import LearnerFiles, SiteLearner
from fedmedclip.edge_client.site.plans import reason_not_to
from fedmedclip.edge_client.site.roles import Identity
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads import methods
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.heads.methods import Method
from fedmedclip.protocol.messages import Plan, Setting
from tests.edge_client.heads.heads_examples import CLASSES, SIZE, example_bundle, example_data
from tests.simulation.federation.loopback import Loopback

BUNDLE = example_bundle()
PLAN = Plan(
    bytes(16), bytes(32), "fedmedclip", BUNDLE.digest, SIZE, 3, 1, "lowrank", "lowrank", {},
    1, 1, False, 1000.0, None,
)  # fmt: skip
IDENTITY = Identity("trial", "site-a", bytes(32), BUNDLE.digest, None, CLASSES, SIZE, "0.2.0")


class Features:
    """Embeddings of a site, as they come from its feature store."""

    def __init__(self, images=20):
        embeddings, labels, _ = example_data(images)
        self.train = self.validation = self.test = LabelledFeatures(embeddings, labels)


@pytest.fixture(scope="module")
def make_learner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    state = SiteState(folder / "site.db")
    files = LearnerFiles(folder / "heads.safetensors", folder / "evaluation.json")

    def make(images=20):
        return SiteLearner(
            "site-a", "trial", BUNDLE, Features(images), state, files, 1, "method", lambda: (0, 0)
        )

    yield make
    state.close()


def changed(**changes):
    return msgspec.structs.replace(PLAN, **changes)


def outside(monkeypatch, name, **described):
    """Install a method of somebody else."""
    shared = HeadSpecification((TensorSpecification("gate", (SIZE,)),))
    described = {"shared_arrays": lambda size, classes: shared, **described}
    method = described.pop("kind")(name=name, **described)
    monkeypatch.setattr(methods, "load_from_outside", lambda *_: method)
    methods.method_named.cache_clear()


def test_a_plan_that_the_site_can_follow_has_no_reason_against_it(make_learner):
    assert reason_not_to(PLAN, IDENTITY, make_learner()) == ""


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (changed(training={"sharpness": 0.5}), "does not know the run's training setting 'sharpness'"),
        (changed(training={"sharpness": 0.5, "batch_size": 8, "a": 1}), "setting 'a', 'sharpness'"),
        (changed(training={f"setting{'x' * 50}{i}": i for i in range(60)}), "does not know"),
        (changed(training={"batch_size": 1}), "batch_size is 1, it must be from 2 to 65536"),
        (changed(training={"batch_size": "many"}), 'batch_size is "many"'),
        (changed(training={"class_balanced": 2}), "class_balanced is 2"),
        (changed(method="fedmedclip-3"), "fedmedclip-3"),
        (changed(method="local-only"), "nothing is federated"),
        (changed(uplink_codec="arithmetic"), "arithmetic"),
        (changed(downlink_codec="arithmetic"), "arithmetic"),
        (changed(uplink_codec="lowrank:x"), "lowrank:x"),
        (changed(bundle_digest=bytes(32)), "copy the federation's bundle"),
        (changed(embedding_size=SIZE + 1), f"embeddings of {SIZE + 1} values"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_a_plan_asks_for_in_vain_is_named(make_learner, plan, words):
    reason = reason_not_to(plan, IDENTITY, make_learner())
    assert words in reason
    assert len(reason) <= 400
    assert "\n" not in reason
    if "bundle" not in words and "embeddings" not in words:
        assert "this site runs fedmedclip 0.2.0: update it" in reason


@given(
    training=st.dictionaries(
        st.sampled_from(["batch_size", "local_epochs", "threads", "beta1", "class_balanced", "new", "é\n"])
        | st.text(max_size=64),
        st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.booleans()
        | st.text(max_size=64),
        max_size=5,
    )
)
def test_whatever_settings_come_the_answer_is_one_line_that_fits(make_learner, training: dict[str, Setting]):
    reason = reason_not_to(changed(training=training), IDENTITY, make_learner())
    assert len(reason) <= 400
    assert "\n" not in reason


def test_too_few_images_are_said_before_the_first_round(make_learner):
    assert "at least 2 labelled images, this site has 1" in reason_not_to(PLAN, IDENTITY, make_learner(1))


def test_a_method_from_outside_that_cannot_train_or_fails_is_named(make_learner, monkeypatch):
    def broken(size, classes):
        raise ZeroDivisionError("so it is")

    plan = changed(method="gate")
    outside(monkeypatch, "gate", kind=Method)
    assert "not how a site trains" in reason_not_to(plan, IDENTITY, make_learner())
    outside(monkeypatch, "gate", kind=SiteMethod, shared_pass=None)
    assert "does not say how it trains" in reason_not_to(plan, IDENTITY, make_learner())
    outside(monkeypatch, "gate", kind=SiteMethod, shared_pass=None, shared_arrays=broken)
    assert "fails (ZeroDivisionError: so it is)" in reason_not_to(plan, IDENTITY, make_learner())
    methods.method_named.cache_clear()


def test_a_site_that_cannot_follow_the_plan_never_joins_and_the_centre_sees_who_and_why(tmp_path):
    def refuse(plan):
        raise InvalidInputError("this version does not know the run's training setting 'sharpness'")

    federation = Loopback(tmp_path, sites=3, rounds=2, minimum_sites=2)
    refusing = federation.learners["site-2"]
    refusing.private_specification = refuse
    for _ in range(400):
        federation.step()
    assert federation.coordinator.global_head.finished
    assert refusing.trained == []
    assert "site-2" not in federation.store.sites()
    (unable,) = [m for m in status_of(federation.coordinator, federation.now).members if m.part == "unable"]
    assert unable.site == "site-2"
    assert "'sharpness'" in unable.reason
