"""Commands of the operator to the aggregator: given by another process, carried out between two messages.

    give -> the aggregator's database -> carried out and recorded, in one transaction -> the answer is read

Given while it does not run, they are carried out when it starts. Each stays on record, with its answer.
"""

import getpass
import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from fedmedclip.aggregator.command_log import CommandRecord, Verdict
from fedmedclip.aggregator.commands import Command, Given, NextRun, ShowStatus, carry_out, read_command
from fedmedclip.aggregator.configuration import AggregatorConfiguration, key_file_of
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.opened_store import database_of, opened_store
from fedmedclip.aggregator.run import Outgoing
from fedmedclip.aggregator.status import FederationStatus, stored_status
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.roster.chain import MAXIMUM_BYTES, open_roster
from fedmedclip.protocol.signature import SigningKey, load_signing_key
from fedmedclip.protocol.state_folder import is_claimed

log = logging.getLogger("fedmedclip.aggregator")

ANSWER_SECONDS = 15.0
LATER = "the aggregator does not run, or is busy; it will be done as soon as it can"
_REPEATED_WITHIN_SECONDS = 86_400.0


def carry_out_waiting(
    store: Store,
    coordinator: Coordinator,
    now: float,
    key: SigningKey,
    begin_next: Callable[[NextRun], str] | None = None,
) -> list[Outgoing]:
    """Carry out every command that waits, and record it, signed with `key`; return what to publish.

    What cannot be done is answered with the reason. A command and its record are on disk together, or
    neither: killed in between, the aggregator does it when it starts, once. `begin_next` begins the next run
    in the store; what waits behind that is for whoever serves it.
    """
    outgoing: list[Outgoing] = []
    for number, given_at, encoded in store.open_commands():
        with store.batch():
            given, published, answer, failed = _done(store, coordinator, now, (given_at, encoded), begin_next)
            by, command = ("", None) if given is None else (given.by, given.command)
            shows = isinstance(command, ShowStatus)
            asked = encoded.decode(errors="replace") if command is None else _asked(command)
            store.finish_command(number, answer, failed=failed, now=time.time())
            if not shows:
                store.command_log.append(
                    key, asked=number, given_at=given_at, done_at=time.time(), by=by, command=asked,
                    answer=answer, failed=failed, run=coordinator.plan.number,
                    version=coordinator.global_head.version,
                )  # fmt: skip
                coordinator.chronicle.note("command", "", answer)
        log.log(logging.DEBUG if shows else logging.INFO, "command %s: %s", asked, answer)
        outgoing += published
        if isinstance(command, NextRun) and not failed and store.plan() != coordinator.plan:
            break
    return outgoing


def _done(
    store: Store,
    coordinator: Coordinator,
    now: float,
    waiting: tuple[float, bytes],
    begin_next: Callable[[NextRun], str] | None,
) -> tuple[Given | None, list[Outgoing], str, bool]:
    """Return a command (None: it is none), what to publish of it, its answer, and whether it failed."""
    given_at, encoded = waiting
    given: Given | None = None
    try:
        given = read_command(encoded)
        if (earlier := _given_before(store, given, given_at)) is not None:
            return given, [], f"{earlier[0]} (given twice, done once)", earlier[1]
        if isinstance(given.command, NextRun) and begin_next is not None:
            return given, [], begin_next(given.command), False
        answer, outgoing = carry_out(given.command, coordinator, now)
        return given, outgoing, answer, False
    except (FedMedClipError, *MALFORMED) as error:
        return given, [], str(error), True


def _given_before(store: Store, given: Given, given_at: float) -> tuple[str, bool] | None:
    """Return the answer to the same command where it was given before, by a double click."""
    for earlier_at, encoded, answer, failed in store.commands_done(given_at - _REPEATED_WITHIN_SECONDS):
        try:
            earlier = read_command(encoded)
        except MALFORMED:
            continue
        if given.repeats(earlier, given_at - earlier_at):
            return answer, failed
    return None


def _asked(command: Command) -> str:
    return msgspec.json.encode(command).decode()


def give(configuration_file: Path, command: Command, *, by: str | None = None, token: str = "") -> str:
    """Give a command to the aggregator of a configuration, and return its answer.

    `by` is who gives it, by default the login name. Raises InvalidInputError when there is no state there,
    or the command cannot be carried out.
    """
    return give_through(
        database_of(configuration_file), command, by or login_name(), token or secrets.token_hex(8)
    )


def give_through(database: Path, command: Command, by: str, token: str = "") -> str:
    """Give a command by the aggregator's database, also from a thread of the aggregator's own process.

    Waits for the answer, so never call it where the commands are carried out, or in an event loop. A `token`
    of the page or form from which it is given lets a double click be one command. Raises InvalidInputError as
    `give` does.
    """
    with opened_store(database) as store:
        answer = _ask(store, Given(by[:300], command, token))
    return answer or LATER


def login_name() -> str:
    """Return the name of the user whose process this is; `unknown` where the system has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def read_status(configuration_file: Path) -> FederationStatus:
    """Return how the federation of a configuration stands, also where its aggregator does not run.

    Raises InvalidInputError when there is no state there, or when the aggregator is too busy to answer.
    """
    settings = read_configuration(configuration_file, AggregatorConfiguration).federation
    with opened_store(database_of(configuration_file)) as store:
        if not is_claimed(store.path.parent):
            return stored_status(store, settings.maximum_share)
        answer = _ask(store, Given(login_name(), ShowStatus()), on_record=False)
    if answer is None:
        raise InvalidInputError(f"the aggregator runs, but did not answer within {ANSWER_SECONDS:.0f} s")
    return msgspec.json.decode(answer, type=FederationStatus)


def read_command_log(configuration_file: Path) -> list[CommandRecord]:
    """Return the record of all commands, oldest first. Raises InvalidInputError without a state."""
    with opened_store(database_of(configuration_file)) as store:
        return store.command_log.records()


def verify_command_log(configuration_file: Path) -> Verdict:
    """Look at the record of all commands. Raises InvalidInputError without a state or a key to verify by."""
    configuration = read_configuration(configuration_file, AggregatorConfiguration)
    keys = {load_signing_key(key_file_of(configuration_file, configuration)).public_key}
    if configuration.federation.roster is not None:
        with open_regular_file(beside(configuration_file, configuration.federation.roster)) as file:
            keys |= set(open_roster(file.read(MAXIMUM_BYTES)).coordinator_keys)
    with opened_store(database_of(configuration_file)) as store:
        return store.command_log.verify(keys)


def _ask(store: Store, given: Given, *, on_record: bool = True) -> str | None:
    """Return the answer to a command, None where none comes in time; it is carried out later then.

    Raises InvalidInputError when it cannot be carried out. One that is not `on_record` is forgotten.
    """
    number = store.give_command(msgspec.json.encode(given), time.time())
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
