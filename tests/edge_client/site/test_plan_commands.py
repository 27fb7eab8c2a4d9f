"""`fedmedclip site plan`, `approve` and `refuse`, on a site's state that no process uses."""

import msgspec
import pytest
from typer.testing import CliRunner

from fedmedclip.edge_client.site.cli import site_app
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.plan_words import terms_hash
from tests.edge_client.site.conftest import PLAN

HOSTILE = msgspec.structs.replace(PLAN, method="x\x1b[2J", training={"a\nrun": 1})


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.delenv("SUDO_USER", raising=False)
    (tmp_path / "site.toml").write_text(
        '[site]\nfederation = "f"\nname = "a"\nbundle = "bundle"\ndata = "images"\nstate = "state"\n'
    )
    return tmp_path


def run(site, command, *more):
    done = CliRunner().invoke(site_app, [command, "--config", str(site / "site.toml"), *more])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def with_state(site, act):
    state = SiteState(site / "state" / "site.db", durable=False)
    try:
        return act(state.consents)
    finally:
        state.close()


def asked(site, plan=PLAN):
    (site / "state").mkdir(exist_ok=True)
    with_state(site, lambda consents: consents.note_asked(plan))


def decisions(site):
    return with_state(site, lambda consents: consents.decisions())


@pytest.mark.parametrize("command", ["approve", "refuse"])
def test_where_nothing_is_asked_it_says_what_to_do(site, command):
    with pytest.raises(InvalidInputError, match=r"no plan has come yet.*fedmedclip site"):
        run(site, command)
    assert "no plan has come yet" in run(site, "plan")


def test_what_is_approved_is_shown_with_its_hash_and_kept_with_who_when_and_why(site):
    asked(site)
    assert "It waits for you" in run(site, "plan")
    said = run(site, "approve", "--reason", "ethics vote 117")
    assert terms_hash(PLAN) in said
    assert "What never leaves:" in said
    (decision,) = decisions(site)
    assert (decision.by, decision.approved, decision.reason) == ("ada", True, "ethics vote 117")
    assert (decision.run, decision.rounds, decision.terms) == (1, 3, terms_hash(PLAN))
    assert "approved already" in run(site, "approve")
    assert len(decisions(site)) == 1
    assert "It is approved" in run(site, "plan")


def test_another_hash_than_the_one_that_is_asked_for_approves_nothing(site):
    asked(site)
    with pytest.raises(InvalidInputError, match=terms_hash(PLAN)):
        run(site, "approve", "--terms", "0" * 64)
    with pytest.raises(InvalidInputError, match="64 hexadecimal digits"):
        run(site, "approve", "--terms", terms_hash(PLAN)[:16])
    assert decisions(site) == []
    run(site, "approve", "--terms", terms_hash(PLAN).upper())
    assert with_state(site, lambda consents: consents.covers(PLAN))


def test_a_refusal_is_taken_back_by_an_approval(site):
    asked(site)
    run(site, "refuse", "--reason", "not yet")
    assert "It is refused" in run(site, "plan")
    assert with_state(site, lambda consents: consents.standing(PLAN)) == "refused"
    run(site, "approve")
    assert with_state(site, lambda consents: consents.standing(PLAN)) == "approved"
    assert [decision.approved for decision in decisions(site)] == [False, True]
    with pytest.raises(InvalidInputError, match="301 characters"):
        run(site, "refuse", "--reason", "x" * 301)


def test_a_plan_is_approved_before_it_comes(site):
    assert "approved in advance" in run(site, "approve", "--terms", terms_hash(PLAN))
    assert with_state(site, lambda consents: consents.covers(PLAN))
    assert not with_state(site, lambda consents: consents.covers(msgspec.structs.replace(PLAN, rounds=4)))


def test_more_rounds_show_what_is_approved_already(site):
    asked(site)
    run(site, "approve")
    asked(site, msgspec.structs.replace(PLAN, rounds=9))
    assert "3 rounds of it are approved" in run(site, "plan")


@pytest.mark.parametrize("command", ["plan", "approve", "refuse"])
def test_json_says_the_same(site, command):
    asked(site)
    said = msgspec.json.decode(run(site, command, "--json"))
    assert said["terms"] == terms_hash(PLAN)
    assert said["awaits_decision"] == (command == "plan")
    assert said["approved"] == (command == "approve")
    assert {line["title"] for line in said["plan"]} >= {"Method", "Rounds", "What leaves"}


def test_what_a_plan_says_moves_no_cursor_and_adds_no_line(site):
    asked(site, HOSTILE)
    said = run(site, "plan")
    assert "\x1b" not in said
    assert not any(line.startswith("run") for line in said.splitlines())
