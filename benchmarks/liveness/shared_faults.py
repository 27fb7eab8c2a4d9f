"""What goes wrong between the parties: broker, strangers, somebody who stays away, another configuration."""

import shutil
import time
from collections.abc import Callable

from benchmarks.liveness.trial import NAME, ROUNDS, SITES, Trial
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.link.link import Received
from fedmedclip.protocol.messages import HeadRequest, Join, JoinAnswer, Moment, Plan
from fedmedclip.protocol.signature import load_or_create_signing_key, new_signing_key
from tests.edge_client.conftest import write_image

FLOOD = 20_000
FLOOD_MEGABYTES = 100.0
ANSWER_SECONDS = 5.0


def second_run(trial: Trial) -> None:
    """The same federation begins another run, while the sites stay."""
    trial.start("aggregator", *SITES, once=False)
    trial.wait_for_version(ROUNDS)
    first = trial.plan()
    trial.stop("aggregator")
    trial.start("aggregator", more=["--new-run"])
    trial.wait_for_end("aggregator")
    assert trial.plan().number > first.number
    trial.digest_of(ROUNDS)


def absent_aggregator(trial: Trial) -> None:
    """A site is started again after the run has ended, while the aggregator is away; then broker, too."""
    trial.start("aggregator", *SITES)
    trial.ends_well(*SITES)
    trial.start("site-a")
    trial.wait_for_end("site-a")
    trial.wait_for_log("site-a", f"the run is over at version {ROUNDS}, which is here")
    trial.mosquitto.kill()
    trial.start("site-b")
    trial.wait_for_end("site-b")
    trial.wait_for_log("site-b", f"the run is over at version {ROUNDS}, which is here")


def later_run_of_an_absent_aggregator(trial: Trial) -> None:
    """The same, but the broker keeps the plan of a later run: the site waits, and takes part."""
    trial.start("aggregator", *SITES)
    trial.ends_well(*SITES)
    trial.start("aggregator", more=["--new-run"])
    trial.wait_for_log("aggregator", "version 0 of")
    trial.wait_until(lambda: trial.log_of("aggregator").count("connected to the broker") == 2, "no plan")
    trial.stop("aggregator")
    trial.start(*SITES)
    trial.wait_until(lambda: "begins; run" in trial.log_of("site-a"), "no later run")
    time.sleep(ANSWER_SECONDS)
    assert trial.processes["site-a"].process.poll() is None
    trial.start("aggregator")
    trial.ends_well(*SITES)


def lowered_norm(trial: Trial) -> None:
    """The largest norm that counts is lowered in the configuration while updates are under way."""
    trial.start("aggregator", *SITES)
    trial.wait_for_version(1)
    trial.edit(maximum_update_norm=1e-3)
    trial.ends_well(*SITES)
    assert trial.plan().maximum_update_norm == 1e-3


def lowered_lease(trial: Trial) -> None:
    """A site hangs in the middle of a lease of an hour, which is lowered while the others wait for it."""
    trial.edit(minimum_sites=2, lease_seconds=3600.0, round_timeout_seconds=3600.0)
    trial.start("aggregator", *SITES)
    trial.wait_for_version(2)
    trial.freeze("site-c")
    # Beyond what it had sent before it hung.
    trial.wait_until(lambda: trial.hangs(3.0), "it does not wait for the site that hangs")
    trial.edit(lease_seconds=10.0)
    trial.ends_well("site-a", "site-b")


def forged_plan(trial: Trial) -> None:
    """An outsider puts a plan of its own in the place of the retained one; then a site starts."""
    stranger, topic = new_signing_key(), topics.plan(NAME)

    def forged() -> bytes:
        plan = trial.plan()
        values = [getattr(plan, name) for name in plan.__struct_fields__[2:]]
        return seal(Plan(plan.identity, stranger.public_key, *values), topic, stranger, NO_IDENTITY)

    _replaced_plan(trial, forged)


def deleted_plan(trial: Trial) -> None:
    """An outsider deletes the retained plan; then a site starts."""
    _replaced_plan(trial, bytes)


def _replaced_plan(trial: Trial, payload: Callable[[], bytes]) -> None:
    trial.start("aggregator", "site-a", "site-b")
    trial.wait_for_log("site-a", "joined federation")
    link = trial.outsider()
    link.publish(topics.plan(NAME), payload(), retain=True)
    trial.wait_for_log("aggregator", "putting it back")
    link.close()
    trial.start("site-c")
    trial.ends_well(*SITES)


def lost_last_will(trial: Trial) -> None:
    """A site and the broker, with all that it kept, go together: nobody says that the site is away."""
    trial.edit(minimum_sites=2, lease_seconds=15.0)
    trial.start("aggregator", *SITES)
    trial.wait_for_version(2)
    trial.mosquitto.kill()
    trial.kill("site-c")
    trial.mosquitto.forget()
    trial.mosquitto.start()
    trial.ends_well("site-a", "site-b")


def flood(trial: Trial) -> None:
    """A member asks 20,000 times for a whole head; somebody else joins meanwhile."""
    # Nothing more is heard of the newcomer: its lease has to end.
    trial.edit(lease_seconds=15.0)
    trial.start("aggregator", "site-a", "site-b", once=False)
    trial.wait_for_log("aggregator", "site-b joined")
    trial.stop("site-b")
    plan, before = trial.plan(), trial.resident_megabytes("aggregator")
    member, topic = (
        load_or_create_signing_key(trial.folder / "site-b" / "site.key"),
        topics.up(NAME, "site-b"),
    )
    request = seal(HeadRequest(-1), topic, member, plan.identity)
    attacker = trial.outsider()
    for _ in range(FLOOD):
        attacker.publish(topic, request)
    seconds = _seconds_to_join(trial, plan)
    assert seconds <= ANSWER_SECONDS, f"an answer took {seconds:.0f} s"
    trial.wait_until(lambda: attacker.unfinished == 0, "the flood does not get through")
    grown = trial.resident_megabytes("aggregator") - before
    assert grown <= FLOOD_MEGABYTES, f"the aggregator grew by {grown:.0f} MB"
    attacker.close()
    trial.edit(minimum_sites=2)
    trial.start("site-b", "site-c", once=False)
    trial.wait_for_version(ROUNDS)


def _seconds_to_join(trial: Trial, plan: Plan) -> float:
    """Let a newcomer ask to join; return how long the answer took."""
    key, topic, link = new_signing_key(), topics.up(NAME, "newcomer"), trial.outsider("newcomer")
    link.subscribe(topics.down(NAME, "newcomer"))
    asked = time.monotonic()
    join = Join(key.public_key, plan.bundle_digest, 10, -1, "", "", Moment(1, 0, 1), 1)
    link.publish(topic, seal(join, topic, key, plan.identity))
    while (seconds := time.monotonic() - asked) <= ANSWER_SECONDS:
        event = link.next_event(0.1)
        if isinstance(event, Received) and isinstance(
            open_envelope(event.payload, event.topic).message, JoinAnswer
        ):
            break
    link.close()
    return seconds


def one_image(trial: Trial) -> None:
    """A site has one image."""
    shutil.rmtree(trial.folder / "data", ignore_errors=True)
    write_image(trial.folder / "data" / "glioma" / "only.png", seed=1)
    trial.configure_site("site-c", trial.folder / "data")
    trial.edit(minimum_sites=2)
    trial.start("aggregator", *SITES)
    trial.ends_well("site-a", "site-b")
    assert "Traceback" not in trial.log_of("site-c")


def broker_that_remembers(trial: Trial) -> None:
    """The broker is killed and comes back with its files."""
    _broken_broker(trial, forgets=False)


def broker_that_forgets(trial: Trial) -> None:
    """The broker is killed and comes back without its files."""
    _broken_broker(trial, forgets=True)


def _broken_broker(trial: Trial, *, forgets: bool) -> None:
    trial.start("aggregator", *SITES)
    trial.wait_for_version(2)
    trial.break_broker(forgets=forgets)
    trial.ends_well(*SITES)


SITUATIONS = [
    second_run, absent_aggregator, later_run_of_an_absent_aggregator, lowered_norm, lowered_lease,
    forged_plan, deleted_plan, lost_last_will, flood, one_image, broker_that_remembers, broker_that_forgets,
]  # fmt: skip
