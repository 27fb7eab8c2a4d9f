"""What `fedmedclip federation` lists, for a person or for a program."""

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedmedclip.aggregator.enrolment.decisions import pending_requests
from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.aggregator.enrolment.invitations import read_invitations
from fedmedclip.aggregator.enrolment.member_list import member_rows
from fedmedclip.aggregator.enrolment.roster_file import record_rows
from fedmedclip.protocol.enrolment.invitation import moment
from fedmedclip.protocol.progress import duration
from fedmedclip.protocol.roster.chain import Roster
from fedmedclip.protocol.signature import fingerprint
from fedmedclip.protocol.visible import visible

_WIDEST = 1000


class InvitationRow(msgspec.Struct, frozen=True):
    """An invitation, with the request that came with it, if one waits. Times are seconds since 1970."""

    number: str
    site: str
    state: str
    invited_by: str
    expires: int
    samples: int | None
    most_samples: int | None
    key: str
    software: str
    asked_at: int | None


def invitation_rows(folder: FederationFolder, now: float) -> list[InvitationRow]:
    """Return every invitation, the oldest first. Raises StorageError."""
    waiting = {item.number: item for item in pending_requests(folder)}
    rows = []
    for kept in read_invitations(folder):
        item = waiting.get(kept.number)
        request = None if item is None else item.received.request
        rows.append(
            InvitationRow(
                kept.number,
                kept.invitation.site,
                kept.state(now),
                kept.invited_by,
                kept.invitation.expires,
                None if request is None else request.samples,
                kept.most_samples if item is None else item.most_samples,
                "" if request is None else fingerprint(request.public_key).hex(),
                "" if request is None else request.software,
                None if request is None else request.at,
            )
        )
    return rows


def print_requests(folder: FederationFolder, now: float, *, as_json: bool, where: str) -> None:
    """Print who asks to join, then what is open; as JSON, every invitation."""
    rows = invitation_rows(folder, now)
    if as_json:
        _print_json(rows)
        return
    asking = [row for row in rows if row.state == "requested"]
    still_open = [row for row in rows if row.state == "open"]
    if asking:
        _print_table(
            ("request", "site", "images", "most samples", "key", "software", "asked at"),
            [
                (
                    row.number,
                    row.site,
                    row.samples,
                    row.most_samples,
                    row.key,
                    row.software,
                    _at(row.asked_at),
                )
                for row in asking
            ],
        )
        print(f"compare the key with the hospital's, then: fedmedclip federation approve REQUEST{where}")
    if still_open:
        _print_table(
            ("invitation", "site", "invited by", "good until"),
            [(row.number, row.site, row.invited_by, moment(row.expires)) for row in still_open],
        )
    if not asking and not still_open:
        print("nobody asks to join, and no invitation is open")


def print_members(folder: FederationFolder, *, as_json: bool) -> None:
    """Print who is a member, and who was."""
    rows = member_rows(folder)
    if as_json:
        _print_json(rows)
        return
    if not rows:
        print("no site is a member yet")
        return
    _print_table(
        (
            "site",
            "",
            "key",
            "certificate until",
            "most samples",
            "since",
            "approved by",
            "heard",
            "software",
        ),
        [
            (
                row.site,
                row.state if not row.reason else f"{row.state}: {row.reason}",
                row.key,
                moment(row.certificate_ends) if row.state == "member" else "",
                row.most_samples,
                moment(row.since),
                row.approved_by,
                "" if row.seen_seconds is None else f"{duration(row.seen_seconds)} ago",
                row.software,
            )
            for row in rows
        ],
    )


def print_roster(roster: Roster, *, as_json: bool) -> None:
    """Print the records of a verified roster."""
    rows = record_rows(roster)
    if as_json:
        _print_json(rows)
        return
    print(
        f"the roster of {visible(roster.federation)}: {len(rows)} records, all verified; "
        f"the coordinator's key is {roster.coordinator_key.hex()}"
    )
    for row in rows:
        print(visible(f"{row.number:>5}  {moment(row.at)}  {row.entry:<13}  {row.site:<12}  {row.says}"))


def _print_json(rows: Sequence[msgspec.Struct]) -> None:
    print(msgspec.json.encode(rows).decode())


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table(*headings, box=None)
    for row in rows:
        table.add_row(*("" if cell is None else escape(visible(cell)) for cell in row))
    # As wide as it is: a number that is cut off cannot be given to the next command.
    Console(highlight=False, width=_WIDEST).print(table)


def _at(seconds: int | None) -> str:
    return "" if seconds is None else moment(seconds)
