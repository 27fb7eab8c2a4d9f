"""Commands of the operator to the aggregator: given by another process, carried out between two messages.

They lie in the aggregator's database: given while it does not run, they are carried out when it starts. Each
stays on record, with its answer.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.run import Outgoing
from fedmedclip.aggregator.status import FederationStatus, status_of, stored_status
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.state_folder import is_claimed

log = logging.getLogger("fedmedclip.aggregator")

ANSWER_SECONDS = 15.0


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


class LeaveOut(_Command, frozen=True):
    """Do not wait for a site in the open round."""

    site: str


class PutInQuarantine(_Command, frozen=True):
    """Let a site not count until it is released."""

    site: str
    reason: Annotated[str, Meta(max_length=300)] = ""


class Release(_Command, frozen=True):
    """Let a site count again."""

    site: str


class RollBack(_Command, frozen=True):
    """Go on from the head of an earlier version."""

    version: Annotated[int, Meta(ge=0, le=1_000_000)]


class ShowStatus(_Command, frozen=True):
    """Say how the federation stands; the answer is JSON, and does not stay on record."""


Command = Pause | Resume | End | AddRounds | LeaveOut | PutInQuarantine | Release | RollBack | ShowStatus


def carry_out(command: Command, coordinator: Coordinator, now: float) -> tuple[str, list[Outgoing]]:
    """Do what is asked; return a sentence for the operator, and what to publish. Raises InvalidInputError."""
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
        case LeaveOut(site):
            return f"round {head.version + 1} does not wait for {site}", coordinator.leave_out(site, now)
        case PutInQuarantine(site, reason):
            return f"{site} does not count until it is released", coordinator.quarantine(site, reason, now)
        case Release(site):
            return f"{site} counts again", coordinator.release(site, now)
        case RollBack(version):
            outgoing = coordinator.roll_back(version, now)
            return f"version {head.version} has the head of version {version}", outgoing
        case ShowStatus():
            return msgspec.json.encode(status_of(coordinator, now)).decode(), []


def carry_out_waiting(store: Store, coordinator: Coordinator, now: float) -> list[Outgoing]:
    """Carry out every command that waits; what cannot be done is answered with the reason."""
    outgoing: list[Outgoing] = []
    for number, encoded in store.open_commands():
        failed = False
        try:
            command: Command = msgspec.json.decode(encoded, type=Command)
            answer, published = carry_out(command, coordinator, now)
            outgoing += published
        except (FedMedClipError, *MALFORMED) as error:
            answer, failed = str(error), True
        asked = encoded.decode(errors="replace")
        log.log(logging.DEBUG if "ShowStatus" in asked else logging.INFO, "command %s: %s", asked, answer)
        store.finish_command(number, answer, failed=failed, now=time.time())
        if "ShowStatus" not in asked:
            coordinator.chronicle.note("command", "", answer)
    return outgoing


def give(configuration_file: Path, command: Command) -> str:
    """Give a command to the aggregator of a configuration, and return its answer.

    Raises InvalidInputError when there is no state there, or the command cannot be carried out.
    """
    with _store_of(configuration_file) as store:
        answer = _ask(store, command)
    return answer or "the aggregator does not run, or is busy; it will be done as soon as it can"


def give_through(database: Path, command: Command, by: str) -> str:
    """Give a command by the aggregator's database, also from a thread of the aggregator's own process.

    Waits for the answer, so never call it where the commands are carried out. `by` says who gives it. Raises
    InvalidInputError as `give` does.
    """
    with closing(Store(database)) as store:
        answer = _ask(store, command)
    log.debug("given by %s", by)
    return answer or "the aggregator is busy; it will be done as soon as it can"


def read_status(configuration_file: Path) -> FederationStatus:
    """Return how the federation of a configuration stands, also where its aggregator does not run.

    Raises InvalidInputError when there is no state there, or when the aggregator is too busy to answer.
    """
    with _store_of(configuration_file) as store:
        if not is_claimed(store.path.parent):
            return stored_status(store)
        answer = _ask(store, ShowStatus(), on_record=False)
    if answer is None:
        raise InvalidInputError(f"the aggregator runs, but did not answer within {ANSWER_SECONDS:.0f} s")
    return msgspec.json.decode(answer, type=FederationStatus)


@contextmanager
def _store_of(configuration_file: Path) -> Iterator[Store]:
    settings = read_configuration(configuration_file, AggregatorConfiguration).federation
    database = beside(configuration_file, settings.state) / "aggregator.db"
    if not database.is_file():
        raise InvalidInputError(f"{database} does not exist: this aggregator has not begun a run")
    store = Store(database)
    try:
        yield store
    finally:
        store.close()


def _ask(store: Store, command: Command, *, on_record: bool = True) -> str | None:
    """Return the answer to a command, None where none comes in time; it is carried out later then.

    Raises InvalidInputError when it cannot be carried out. One that is not `on_record` is forgotten.
    """
    number = store.give_command(msgspec.json.encode(command), time.time())
    try:
        until = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < until:
            if (answered := store.command_answer(number)) is not None:
                answer, failed = answered
                if failed:
                    raise InvalidInputError(answer)
                return answer
            time.sleep(0.2)
        return None
    finally:
        if not on_record:
            store.forget_command(number)
