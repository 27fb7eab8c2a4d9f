"""`fedmedclip site plan`, `approve` and `refuse`: they work while the site runs, and while it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedclip.edge_client.site.command_line import DATABASE, ConfigOption, state_of
from fedmedclip.protocol.visible import visible

if TYPE_CHECKING:
    from fedmedclip.edge_client.site.consent import Consents
    from fedmedclip.protocol.messages import Plan

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]
ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why, for the record; a refusal's is told to the coordinator.")
]
_LONGEST_REASON = 300


def plan_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Show what the coordinator asks of this hospital in plain words, with its hash, and what was decided."""
    from fedmedclip.edge_client.site.plan_report import report_lines

    with _consents(config) as consents:
        if as_json:
            _print_json(consents)
        else:
            print("\n".join(map(visible, report_lines(consents))))


def approve_command(
    config: ConfigOption,
    terms: Annotated[
        str | None,
        typer.Option(
            "--terms",
            help="The plan's hash: nothing else is approved. Of a plan that has not come yet, in advance.",
        ),
    ] = None,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Approve the plan that is asked for: this site takes part, within seconds where it runs.

    Fewer rounds, a pause or a smaller norm ask no second time; more rounds and anything else do. Exit code 2
    where nothing is asked, or the plan has another hash.
    """
    from fedmedclip.edge_client.site.plan_report import plan_lines
    from fedmedclip.protocol.errors import InvalidInputError
    from fedmedclip.protocol.plan_words import terms_hash

    wanted = None if terms is None else _hash_in(terms)
    _check(reason)
    with _consents(config) as consents:
        plan, waits = consents.heard(), consents.asked() is not None
        is_other = wanted is not None and (plan is None or terms_hash(plan) != wanted)
        if is_other and waits and plan is not None:
            raise InvalidInputError(
                f"the plan that is asked for has the hash {terms_hash(plan)}, not {wanted}; read it: "
                "fedmedclip site plan"
            )
        if is_other and wanted is not None:
            consents.approve_in_advance(wanted, _user(), reason)
            said = [f"approved in advance: the plan with hash {wanted}, should it come"]
        else:
            plan = _require(plan)
            said = plan_lines(plan)
            if waits or not consents.covers(plan):
                consents.decide(plan, True, _user(), reason)
                said += ["", f"Approved by {_user()}: this site takes part."]
            else:
                said += ["", "It is approved already."]
        if as_json:
            _print_json(consents)
        else:
            print("\n".join(map(visible, said)))


def refuse_command(config: ConfigOption, reason: ReasonOption = "", as_json: JsonOption = False) -> None:
    """Refuse the newest plan, also one that was approved: this site trains and sends no more of its run.

    The coordinator is told, with the reason, and waits for this site no longer. `approve` takes it back.
    """
    _check(reason)
    with _consents(config) as consents:
        plan = _require(consents.heard())
        if consents.standing(plan) != "refused" or reason:
            consents.decide(plan, False, _user(), reason)
        if as_json:
            _print_json(consents)
        else:
            print(visible(f"refused by {_user()}: run {plan.number} of {plan.method}, {plan.rounds} rounds"))


@contextmanager
def _consents(config: Path) -> Iterator[Consents]:
    from fedmedclip.edge_client.site.state import SiteState

    folder = state_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    state = SiteState(folder / DATABASE)
    try:
        yield state.consents
    finally:
        state.close()


def _require(plan: Plan | None) -> Plan:
    from fedmedclip.protocol.errors import InvalidInputError

    if plan is None:
        raise InvalidInputError(
            "nothing is asked: no plan has come yet; it does once this site runs (fedmedclip site) and its "
            "coordinator has begun; or approve it in advance: --terms HASH"
        )
    return plan


def _hash_in(terms: str) -> str:
    from fedmedclip.protocol.errors import InvalidInputError

    found = terms.strip().lower()
    if len(found) != 64 or set(found) - set("0123456789abcdef"):
        raise InvalidInputError("--terms is a plan's hash, of 64 hexadecimal digits: fedmedclip site plan")
    return found


def _check(reason: str) -> None:
    from fedmedclip.protocol.errors import InvalidInputError

    if len(reason) > _LONGEST_REASON:
        raise InvalidInputError(
            f"--reason has {len(reason)} characters, it may have {_LONGEST_REASON}: give a shorter one"
        )


def _user() -> str:
    """Return the login name, of whoever became another user by `sudo`, too."""
    import getpass
    import os

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "a user without a name"


def _print_json(consents: Consents) -> None:
    import msgspec

    from fedmedclip.edge_client.site.plan_report import report_on

    print(msgspec.json.format(msgspec.json.encode(report_on(consents)), indent=2).decode())
