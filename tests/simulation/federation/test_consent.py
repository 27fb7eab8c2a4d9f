"""Hospitals that approve late, refuse, or change their minds, amid kills: whoever approves takes part."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.aggregator.status import status_of
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.edge_client.site.state import SiteState
from tests.simulation.federation.loopback import Loopback

ASK = PolicySettings()


def asking(folder, sites=3, **settings):
    policies = {f"site-{index}": ASK for index in range(sites)}
    return Loopback(folder, sites=sites, site_policies=policies, **settings)


def decide(federation, site, approved, reason=""):
    """Decide as another process does; nothing is decided where no plan has come."""
    other = SiteState(federation.folder / f"{site}.db", durable=False)
    if (plan := other.consents.heard()) is not None:
        other.consents.decide(plan, approved, "operator", reason)
    other.close()


def play(federation, steps, chance=None):
    for _ in range(steps):
        federation.step(chance=chance)


def parts(federation):
    return {member.site: member.part for member in status_of(federation.coordinator, federation.now).members}


def warnings(federation):
    return status_of(federation.coordinator, federation.now).warnings


def play_until(federation, true, steps=3000):
    for _ in range(steps):
        if true():
            return
        federation.step()
    raise AssertionError(f"it did not come to it; {parts(federation)}, {warnings(federation)}")


def test_a_round_needs_enough_sites_that_consent_and_says_what_it_waits_for(tmp_path, caplog):
    federation = asking(tmp_path, rounds=3, minimum_sites=2)
    play(federation, 60)
    assert set(parts(federation).values()) == {"awaits consent"}
    decide(federation, "site-0", True)
    decide(federation, "site-1", False, "no ethics vote")
    play(federation, 200)
    assert federation.coordinator.global_head.version == 0
    assert parts(federation) == {"site-0": "delivered", "site-1": "refused", "site-2": "awaits consent"}
    (said,) = warnings(federation)
    assert "1 of 3 sites take part, and a round needs 2" in said
    assert "(site-1 refused, site-2 awaits consent)" in said
    assert caplog.text.count("no ethics vote") == 2  # once at the site, once at the centre
    assert 1 <= caplog.text.count("sites take part, and a round needs 2") <= 5
    decide(federation, "site-2", True)
    play_until(federation, lambda: federation.coordinator.global_head.version == 3)
    assert warnings(federation) == []
    assert federation.learners["site-1"].trained == []


def test_the_coordinator_may_lower_what_a_round_needs_while_it_waits(tmp_path):
    federation = asking(tmp_path, rounds=2, minimum_sites=2)
    play(federation, 60)
    decide(federation, "site-0", True)
    play(federation, 100)
    assert federation.coordinator.global_head.version == 0
    edited = msgspec.structs.replace(
        federation.configuration,
        federation=msgspec.structs.replace(federation.configuration.federation, minimum_sites=1),
    )
    federation.from_aggregator(
        federation.coordinator.reconfigure(federation.configuration, edited, federation.now)
    )
    play_until(federation, lambda: federation.coordinator.global_head.version == 2)


def test_who_refuses_in_the_midst_of_a_round_is_not_waited_for_and_comes_back(tmp_path):
    federation = asking(tmp_path, rounds=4, minimum_sites=2)
    play(federation, 60)
    for site in federation.agents:
        decide(federation, site, True)
    play_until(federation, lambda: federation.coordinator.global_head.version == 1)
    decide(federation, "site-2", False)
    play_until(federation, lambda: federation.coordinator.global_head.version >= 2)
    trained = list(federation.learners["site-2"].trained)
    assert len(trained) <= 2
    decide(federation, "site-2", True)
    federation.run()
    assert federation.learners["site-2"].trained > trained
    federation.final_digest()


def test_an_aggregator_that_lost_what_was_said_hears_it_again(tmp_path):
    federation = asking(tmp_path, rounds=2, minimum_sites=2)
    play(federation, 60)
    federation.now += 100.0
    federation.kill("aggregator")
    play(federation, 40)
    assert set(parts(federation).values()) == {"awaits consent"}


def test_a_site_at_its_limit_is_not_waited_for_says_why_and_follows(tmp_path, caplog):
    federation = Loopback(
        tmp_path,
        rounds=2,
        minimum_sites=2,
        site_policies={"site-2": PolicySettings(approve="automatic", rounds_in_all=1)},
    )
    federation.run(kills=0.05, loss=0.1, seed=3)
    federation.final_digest()
    assert federation.states["site-2"].contributions.count() == 1
    assert "site-2 abstains: rounds_in_all = 1 of this hospital's policy is reached" in caplog.text


Act = st.tuples(
    st.sampled_from(["approve", "refuse", "kill", "kill aggregator", "lose link", "play"]),
    st.integers(0, 1),
)


@settings(max_examples=2, deadline=None, derandomize=True)
@given(acts=st.lists(Act, min_size=2, max_size=12), seed=st.integers(0, 9))
def test_from_every_order_of_events_it_goes_on_once_all_approve(tmp_path_factory, acts, seed):
    federation = asking(tmp_path_factory.mktemp("orders"), sites=2, rounds=2, minimum_sites=1)
    chance = random.Random(seed)
    for act, which in acts:
        site = f"site-{which}"
        match act:
            case "approve" | "refuse":
                decide(federation, site, act == "approve")
            case "kill":
                federation.kill(site)
            case "kill aggregator":
                federation.kill("aggregator")
            case "lose link":
                federation.agents[site].disconnected()
                federation.agents[site].connected()
        play(federation, chance.randrange(12), chance)
    play(federation, 40)
    for site in federation.agents:
        decide(federation, site, True)
    federation.run()
    federation.final_digest()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(acts=st.lists(Act, min_size=2, max_size=30), seed=st.integers(0, 1000))
def test_from_very_many_orders_of_events_it_goes_on(tmp_path_factory, acts, seed):
    test_from_every_order_of_events_it_goes_on_once_all_approve.hypothesis.inner_test(
        tmp_path_factory, acts, seed
    )
