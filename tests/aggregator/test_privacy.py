"""What an aggregator asks for and shows of its sites' privacy."""

import msgspec
import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.federation import begin_or_resume
from fedmedclip.aggregator.intake import Intake, Terms
from fedmedclip.aggregator.status import status_of, stored_status
from fedmedclip.aggregator.status_table import headline, print_status
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.configuration import convert
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.messages import PrivacySpent, PrivacyTerms, Update
from tests.edge_client.heads.heads_examples import example_bundle
from tests.simulation.federation.loopback import Loopback

SPENT = PrivacySpent(0.5, 2.25, 8.0, 1e-5)
SPECIFICATION = HeadSpecification((TensorSpecification("weight", (4,)),))


def configured(**changes):
    federation = {"name": "trial", "bundle": "bundle", "rounds": 30, **changes.pop("federation", {})}
    return convert({"federation": federation, **changes}, AggregatorConfiguration, "aggregator.toml")


def plan_of(folder, **changes):
    store = Store(folder / "aggregator.db", durable=False)
    plan, _ = begin_or_resume(configured(**changes), example_bundle(), store, bytes(32))
    store.close()
    return plan


def test_the_plan_asks_for_what_the_file_asks_for(tmp_path):
    assert plan_of(tmp_path).privacy is None
    asked = {"epsilon": 4.0, "unit": "patient"}
    (tmp_path / "gradients").mkdir()
    plan = plan_of(tmp_path / "gradients", privacy=asked)
    assert plan.privacy == PrivacyTerms(4.0, 1e-5, "patient", 16, 8, 1.0, 0.25, 30)
    # More rounds are no other privacy: the budget lasts as long as when the run was begun.
    more = plan_of(tmp_path / "gradients", privacy=asked, federation={"rounds": 40})
    assert (more.rounds, more.privacy) == (40, plan.privacy)
    with pytest.raises(InvalidInputError, match="begun with another privacy"):
        plan_of(tmp_path / "gradients", privacy={"epsilon": 8.0})
    (tmp_path / "statistics").mkdir()
    statistics = plan_of(tmp_path / "statistics", privacy=asked, federation={"method": "whitened-memory"})
    assert statistics.privacy.releases == 1


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("epsilon", 0.0, "epsilon is 0.0 (a number with a point); give a number above 0"),
        ("epsilon", float("inf"), "epsilon is inf; give a finite number"),
        ("delta", 1.0, "delta is 1.0"),
        ("unit", "hospital", 'unit is "hospital" (text); give "image" or "patient"'),
        ("sampling_rate", 1.5, "sampling_rate is 1.5"),
        ("releases", 0, "releases is 0"),
    ],
)
def test_a_promise_that_cannot_be_is_refused_in_one_line(setting, value, words):
    with pytest.raises(InvalidInputError) as refused:
        configured(privacy={"epsilon": 1.0, setting: value})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_update_that_says_nothing_of_its_privacy_does_not_count_where_it_is_asked_for(store):
    store.admit("a", b"k" * 32, 1, "0.2.0")
    intake = Intake(store, SPECIFICATION)
    verdict = intake.update("a", Update(1, 10, b"", 0), Terms(0, False, 1.0, 0, private=True), 0.0)
    assert verdict.refusal == "this run asks for privacy, and the update does not say what its own costs"
    assert store.last_round("a") == 0


def test_the_status_shows_per_site_what_is_spent_and_what_is_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    federation = Loopback(tmp_path, sites=2, rounds=3)
    while not all(agent.joined for agent in federation.agents.values()):
        federation.step()
    coordinator = federation.coordinator
    store = coordinator._run.store
    terms = PrivacyTerms(8.0, 1e-5, "image", 16, 8, 1.0, 0.25, 3)
    coordinator._run.plan = msgspec.structs.replace(coordinator.plan, privacy=terms)
    store.revise(coordinator.plan)
    store.add_update(1, "site-0", 10, b"", SPENT)
    for status in (status_of(coordinator, federation.now), stored_status(store)):
        known = msgspec.json.decode(msgspec.json.encode(status))
        assert known["privacy"] == {"epsilon": 8.0, "delta": 1e-5, "unit": "image"}
        first, second = known["members"]
        assert first["privacy"] == {
            "cost": 0.5, "spent": 2.25, "epsilon": 8.0, "delta": 1e-5, "remaining": 5.75,
        }  # fmt: skip
        assert second["privacy"] is None
        assert ", epsilon 8 and delta 1e-05 per image)" in headline(status)
        print_status(status)
        assert "2.25 of 8 (delta 1e-05)" in capsys.readouterr().out
