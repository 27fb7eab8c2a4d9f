"""What a federation does on bad links, with real processes: slow, long, lossy, gone half of the time, dead.

    sudo python -m benchmarks.wire.links --bundle B --data SITE_FOLDER [--only lossy ...]

One site of two is at the other end of a wire that carries, delays and drops IP packets (`wire`): lost packets
are lost to TCP. Everywhere the rounds go on to the last, and MQTT 5 is not given up for 3.1.1. The last line
is a JSON object {situation: {"held", "seconds", "goodput"}}; the exit code is 1 where something did not hold.
From the repository's root.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.wire.far_site import FAR, FarSite, TooLateError
from benchmarks.wire.goodput import ONE_WAY_SECONDS
from benchmarks.wire.two_hosts import two_hosts
from benchmarks.wire.wire import Conditions

NOTICED_SECONDS = 40.0
BACK_SECONDS = 5.0
CLEAN = Conditions(seconds=ONE_WAY_SECONDS)
# Shares of what passes that are heads.
CLEAN_GOODPUT = 0.85
LOSSY_SHARE_OF_CLEAN = 0.9
HALF_GOODPUT = 0.58


@dataclass
class Outcome:
    """`seconds` are those of the situation's own promise: of a round, or from an event to what follows it."""

    held: bool
    seconds: float
    goodput: float | None = None
    words: str = ""


@dataclass(frozen=True)
class Situation:
    """Rounds on a wire; `disturb` plays on it when the first is over, and says what it found."""

    conditions: Conditions
    rounds: int
    seconds_for_all: float
    least_goodput: float
    disturb: Callable[[FarSite], Outcome] | None = None


def gone_half_of_the_time(federation: FarSite) -> Outcome:
    """Let the wire be dead for 20 s and live for 20 s, in turns, until the last round."""
    started, before = time.monotonic(), federation.closed_rounds()
    while federation.closed_rounds() < federation.rounds and time.monotonic() - started < 600.0:
        phase = (time.monotonic() - started) % 40.0
        federation.wire.conditions = Conditions(seconds=ONE_WAY_SECONDS, dead=phase < 20.0)
        time.sleep(0.2)
    rounds = federation.closed_rounds() - before
    return Outcome(rounds == federation.rounds - before, (time.monotonic() - started) / max(1, rounds))


def black_hole(federation: FarSite) -> Outcome:
    """Let nothing pass for 70 s, and see when the site notices and when it is back."""
    lines = len(federation.log(FAR))
    started = time.monotonic()
    federation.wire.conditions = Conditions(seconds=ONE_WAY_SECONDS, dead=True)
    federation.wait_for(FAR, "; trying again in", lines, 60.0)
    noticed = time.monotonic() - started
    time.sleep(max(0.0, 70.0 - noticed))
    lines = len(federation.log(FAR))
    federation.wire.conditions = CLEAN
    back = _seconds_to_progress(federation, lines)
    held = noticed <= NOTICED_SECONDS and back <= BACK_SECONDS
    return Outcome(
        held, back, words=f"noticed after {noticed:.1f} s, progress {back:.1f} s after the wire is back"
    )


def broker_gone(federation: FarSite) -> Outcome:
    """Stop the broker for 30 s."""
    federation.broker.stop()
    time.sleep(30.0)
    lines = len(federation.log(FAR))
    federation.broker.start()
    back = _seconds_to_progress(federation, lines)
    return Outcome(back <= BACK_SECONDS, back, words=f"progress {back:.1f} s after the broker is back")


def _seconds_to_progress(federation: FarSite, lines: int) -> float:
    """Return after how long the aggregator has admitted the site anew, so that it trains and delivers."""
    started = time.monotonic()
    federation.wait_for(FAR, "joined federation", lines, 60.0)
    return time.monotonic() - started


SITUATIONS = {
    "clean": Situation(CLEAN, 30, 300.0, CLEAN_GOODPUT),
    "lossy": Situation(
        Conditions(seconds=ONE_WAY_SECONDS, loss=0.05), 30, 300.0, LOSSY_SHARE_OF_CLEAN * CLEAN_GOODPUT
    ),
    "slow": Situation(Conditions(bits_per_second=9600.0, seconds=ONE_WAY_SECONDS), 5, 300.0, 0.0),
    "long": Situation(Conditions(seconds=0.3), 5, 300.0, 0.0),
    "very_long": Situation(Conditions(seconds=3.0), 4, 400.0, 0.0),
    "half": Situation(CLEAN, 20, 900.0, HALF_GOODPUT, gone_half_of_the_time),
    "black_hole": Situation(CLEAN, 200, 0.0, 0.0, black_hole),
    "broker_gone": Situation(CLEAN, 200, 0.0, 0.0, broker_gone),
}


def main() -> None:
    """Make the hosts, and try each situation on them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SITUATIONS, default=list(SITUATIONS))
    parser.add_argument("--at-centre", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.at_centre:
        with two_hosts() as enter:
            again = [sys.executable, "-m", "benchmarks.wire.links", *sys.argv[1:], "--at-centre"]
            sys.exit(subprocess.run([*enter, *again], check=False).returncode)
    outcomes = {}
    for name in arguments.only:
        outcome = outcomes[name] = play(SITUATIONS[name], arguments.bundle, arguments.data)
        goodput = "" if outcome.goodput is None else f", goodput {outcome.goodput:.3f}"
        held = "held" if outcome.held else "DID NOT HOLD"
        print(f"{name}: {held}, {outcome.seconds:.1f} s{goodput}; {outcome.words}", flush=True)
    kept = ("held", "seconds", "goodput")
    print(
        json.dumps({name: {key: asdict(outcome)[key] for key in kept} for name, outcome in outcomes.items()})
    )
    sys.exit(not all(outcome.held for outcome in outcomes.values()))


def play(situation: Situation, bundle: Path, data: Path) -> Outcome:
    """Run one federation in one situation."""
    with FarSite(bundle, data, situation.rounds, conditions=situation.conditions) as federation:
        try:
            federation.wait_for_round(1)
            federation.begin_counting()
            started = time.monotonic()
            if situation.disturb is not None:
                outcome = situation.disturb(federation)
            else:
                federation.wait_for_round(situation.rounds, situation.seconds_for_all)
                rounds = situation.rounds - 1
                outcome = Outcome(True, (time.monotonic() - started) / rounds)
            passed, seen = federation.counted()
            if situation.seconds_for_all:
                outcome.goodput = round(sum(seen.head_bytes.values()) / passed.all_bytes, 3)
                outcome.held = outcome.held and outcome.goodput >= situation.least_goodput
                outcome.words += f"{situation.rounds - 1} rounds"
                federation.finish()
        except TooLateError as error:
            return Outcome(False, situation.seconds_for_all, words=str(error))
        if "MQTT 3.1.1" in federation.log(FAR):
            return Outcome(False, outcome.seconds, outcome.goodput, "MQTT 5 was given up for 3.1.1")
    outcome.seconds = round(outcome.seconds, 1)
    return outcome


if __name__ == "__main__":
    main()
