"""What the operator can ask of a run while it goes on, and what the aggregator does for it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.run import Outgoing
from fedmedclip.aggregator.status import status_of
from fedmedclip.protocol.errors import InvalidInputError

LONGEST_DEADLINE_SECONDS = 31_536_000
"""A year."""
_DOUBLE_CLICK_SECONDS = 1.0

ShortText = Annotated[str, Meta(max_length=300)]


class _Command(msgspec.Struct, frozen=True, tag=True):
    pass


class Pause(_Command, frozen=True):
    """No round closes, and no site trains, until it is resumed."""


class Resume(_Command, frozen=True):
    """Go on after a pause."""


class End(_Command, frozen=True):
    """The newest version is the last."""


class AddRounds(_Command, frozen=True):
    """So many rounds more than planned."""

    number: Annotated[int, Meta(ge=1, le=1_000_000)]


class Deadline(_Command, frozen=True):
    """Another time limit of the open round and of later ones, until the configuration's is edited."""

    seconds: Annotated[float, Meta(ge=1, le=LONGEST_DEADLINE_SECONDS)]


class LeaveOut(_Command, frozen=True):
    """Do not wait for a site in the open round; what it delivers still counts."""

    site: str


class Drop(_Command, frozen=True):
    """Do not wait for a site in the open round, and do not count what it delivers for it."""

    site: str


class PutInQuarantine(_Command, frozen=True):
    """Let a site not count until it is released."""

    site: str
    reason: ShortText = ""


class Release(_Command, frozen=True):
    """Let a site count again."""

    site: str


class RollBack(_Command, frozen=True):
    """Go on from the head of an earlier version."""

    version: Annotated[int, Meta(ge=0, le=1_000_000)]


class NextRun(_Command, frozen=True):
    """End the run and begin the next, with the configuration as it is on disk then.

    `bundle` (an absolute path), `rounds` and `method` take the place of what stands there until that is
    edited. With `from_newest` it starts from what fits of the newest head.
    """

    from_newest: bool = False
    bundle: Annotated[str, Meta(max_length=4096)] | None = None
    rounds: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    method: ShortText | None = None


class ShowStatus(_Command, frozen=True):
    """Say how the federation stands; the answer is JSON, and does not stay on record."""


Command = (
    Pause | Resume | End | AddRounds | Deadline | LeaveOut | Drop | PutInQuarantine | Release | RollBack
    | NextRun | ShowStatus
)  # fmt: skip


class Given(msgspec.Struct, frozen=True, tag=True):
    """A command, and who gave it: a login name, or what gave it, such as `page`.

    Whoever may send the same twice, by a double click or a repeated request, gives it a `token` of its own.
    """

    by: ShortText
    command: Command
    token: ShortText = ""

    def repeats(self, earlier: "Given", seconds: float) -> bool:
        """Whether this is the same command once more, given `seconds` after the earlier one.

        What names a state is not looked at: given twice it changes nothing.
        """
        if self.command != earlier.command or not isinstance(self.command, AddRounds | RollBack | NextRun):
            return False
        if self.token or earlier.token:
            return self.token == earlier.token
        return self.by == earlier.by and seconds < _DOUBLE_CLICK_SECONDS


def read_command(encoded: bytes) -> Given:
    """Return a command as it lies in the store; one of an earlier release does not say who gave it.

    Raises an error of `protocol.malformed.MALFORMED` for anything else.
    """
    found: Given | Command = msgspec.json.decode(encoded, type=Given | Command)
    return found if isinstance(found, Given) else Given("", found)


def carry_out(command: Command, coordinator: Coordinator, now: float) -> tuple[str, list[Outgoing]]:
    """Do what is asked; return a sentence for the operator, and what to publish. Raises InvalidInputError.

    Given twice, a command that names a state (paused, the last version, a site left out) changes nothing.
    """
    head, plan = coordinator.global_head, coordinator.plan
    match command:
        case Pause():
            return "paused", coordinator.revise(now, paused=True)
        case Resume():
            return "resumed", coordinator.revise(now, paused=False)
        case End():
            if head.version == 0:
                raise InvalidInputError("no round is done yet; a run has at least one")
            return f"version {head.version} is the last", coordinator.revise(now, rounds=head.version)
        case AddRounds(number):
            rounds = max(plan.rounds, head.version) + number
            return f"the run has {rounds} rounds now", coordinator.revise(now, rounds=rounds)
        case Deadline(seconds):
            outgoing = coordinator.change_deadline(seconds, now)
            return f"a round's time limit is {seconds:g} s from now on", outgoing
        case LeaveOut(site):
            return f"round {head.version + 1} does not wait for {site}", coordinator.leave_out(site, now)
        case Drop(site):
            round_number = head.version + 1
            outgoing = coordinator.drop(site, now)
            return f"round {round_number} is made without {site}; it takes part again in the next", outgoing
        case PutInQuarantine(site, reason):
            return f"{site} does not count until it is released", coordinator.quarantine(site, reason, now)
        case Release(site):
            return f"{site} counts again", coordinator.release(site, now)
        case RollBack(version):
            outgoing = coordinator.roll_back(version, now)
            return f"version {head.version} has the head of version {version}", outgoing
        case NextRun():
            raise InvalidInputError("the next run is begun by the aggregator's service alone")
        case ShowStatus():
            return msgspec.json.encode(status_of(coordinator, now)).decode(), []
