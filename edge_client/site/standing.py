"""Where a site stands in its run at a moment, and that in a sentence for its operator."""

from typing import Literal

import msgspec

from fedmedclip.protocol.messages import Plan

Tone = Literal["good", "waiting", "bad", "quiet"]


class Standing(msgspec.Struct, frozen=True):
    """What the agent knows: of the newest `plan`, declined for a reason or not; of the run that is followed.

    `withheld` is why nothing is sent of the open round, `under_way` whether an update is not settled yet.
    """

    plan: Plan | None = None
    joined: bool = False
    finished: bool = False
    declined: str = ""
    withheld: str = ""
    version: int = -1
    trained_round: int = 0
    under_way: bool = False


class Now(msgspec.Struct, frozen=True):
    """A site at this moment: its connection since `since` (seconds since 1970), and the round it trains."""

    connected: bool
    since: float
    standing: Standing = Standing()
    trains: int | None = None


def in_words(now: Now) -> tuple[Tone, str]:
    """Return how it goes, and a sentence that says what the site does."""
    standing, plan = now.standing, now.standing.plan
    if now.trains is not None and plan is not None:
        return "good", f"Trains round {now.trains} of {plan.rounds} on this hospital's images."
    if not now.connected:
        return "bad", "Is not connected to the broker, and tries again by itself."
    if plan is None:
        return "waiting", "Waits for the coordinator to begin a run."
    if standing.declined:
        return "waiting", f"Takes no part in this run: {standing.declined}."
    if not standing.joined:
        return "waiting", "Asks the coordinator to be let in."
    if standing.finished:
        return "good", f"The run is finished: its last version, {standing.version}, is here."
    if plan.paused:
        return "quiet", "The coordinator has paused the run."
    if standing.withheld:
        return "waiting", f"Sends nothing at present: {standing.withheld}."
    return "good", _in_a_round(standing, standing.version + 1)


def _in_a_round(standing: Standing, round_number: int) -> str:
    if standing.version < 0:
        return "Waits for the coordinator's first version."
    if standing.under_way:
        return f"Sends its update of round {standing.trained_round}."
    if standing.trained_round >= round_number:
        return f"Has delivered its update of round {standing.trained_round}, and waits for the other sites."
    return f"Waits to train round {round_number}."
