"""What the operator may do on the page: buttons that say what will happen, and the commands behind them.

A command goes into the aggregator's database, as on the command line, and stays on record there; the page
waits for the answer in a thread of its own.
"""

import threading
from collections.abc import Callable, Iterable
from typing import get_args

import msgspec

from fedmedclip.aggregator.commands import Command
from fedmedclip.aggregator.page.view import View
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError
from fedmedclip.protocol.pages.elements import Html, button, element, joined
from fedmedclip.protocol.pages.page import Action, Fields

Give = Callable[[Command, str], str]
"""Gives the aggregator a command of somebody, and returns the answer."""

_KNOWN = frozenset(kind.__name__ for kind in get_args(Command))
_ACTIONS = {
    "pause": "Pause", "resume": "Resume", "end": "End", "more-rounds": "AddRounds", "deadline": "Deadline",
    "leave-out": "LeaveOut", "drop": "Drop", "quarantine": "PutInQuarantine", "release": "Release",
    "roll-back": "RollBack",
}  # fmt: skip
_LIST = "sites-of-this-federation"
_LOOK_SECONDS = 0.2
BY_COMMAND_LINE = (
    "This page only shows. The run is steered by fedmedclip control; or put allow_changes = true under "
    "[page] in aggregator.toml, and this page has buttons for whoever has the token."
)


def actions(give: Give, closing: threading.Event) -> dict[str, Action]:
    """Return what the page's buttons do. Where the page is `closing`, nobody waits for an answer any more."""
    return {action: _action(kind, give, closing) for action, kind in _ACTIONS.items() if kind in _KNOWN}


def _action(kind: str, give: Give, closing: threading.Event) -> Action:
    def act(fields: Fields, by: str) -> str:
        return _answer(command_of(kind, fields), by, give, closing)

    return act


def command_of(kind: str, fields: Fields) -> Command:
    """Return the command of a form. Raises InvalidInputError for values that it cannot have."""
    try:
        command: Command = msgspec.convert({**fields, "type": kind}, Command, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"this cannot be done with these values: {error}") from error
    return command


def _answer(command: Command, by: str, give: Give, closing: threading.Event) -> str:
    """Give a command and return its answer; a page that closes leaves it to the next start."""
    said: list[str | FedMedClipError] = []

    def ask() -> None:
        try:
            said.append(give(command, by))
        except FedMedClipError as error:
            said.append(error)

    thread = threading.Thread(target=ask, name="command", daemon=True)
    thread.start()
    while thread.is_alive() and not closing.is_set():
        thread.join(_LOOK_SECONDS)
    if not said:
        return "the aggregator stops; it will be done when it starts again"
    if isinstance(said[0], FedMedClipError):
        raise said[0]
    return said[0]


def steering(view: View, may_change: bool, *, allowed: bool) -> Html:
    """Return the buttons; for whoever may not, how to steer otherwise."""
    if not may_change:
        how = "Log in, at the end of this page, to steer the run." if allowed else BY_COMMAND_LINE
        return element("p", how, class_="faint")
    names = element(
        "datalist", *(element("option", value=member.site) for member in view.status.members), id=_LIST
    )
    return joined([names, element("h3", "The run"), *_of_run(view), element("h3", "A site"), *_of_site(view)])


def _of_run(view: View) -> Iterable[Html]:
    status = view.status
    if status.paused:
        yield button("resume", "Resume", sure="Rounds go on, and the sites train again.")
    else:
        yield button("pause", "Pause", sure="No round closes and no site trains until you resume.")
    if not status.finished and status.version > 0:
        yield button(
            "end", "End now", sure=f"Version {status.version} will be the last, unless you add more."
        )
    yield button(
        "more-rounds",
        "More rounds",
        asked=[("number", "How many more", "number")],
        sure=f"The run has {status.rounds} rounds now. The sites go on by themselves, where they may.",
    )
    if "Deadline" in _KNOWN:
        yield button(
            "deadline",
            "Time limit",
            asked=[("seconds", "Seconds from a round's first update", "number")],
            sure="A round then closes without those who have not delivered, if enough have.",
        )


def _of_site(view: View) -> Iterable[Html]:
    site = ("site", "Site", "text")
    yield _site_button(
        "leave-out", "Leave out", [site], "This round does not wait for it; what it delivers still counts."
    )
    if "Drop" in _KNOWN:
        yield _site_button(
            "drop", "Drop", [site], "This round is made without it, also if its update is here already."
        )
    yield _site_button(
        "quarantine",
        "Quarantine",
        [site, ("reason", "Reason, which the site reads", "text")],
        "It does not count, and no round waits for it, until you release it.",
    )
    if any(member.part == "quarantined" for member in view.status.members):
        yield _site_button("release", "Release", [site], "It counts again, from the next round on.")


def _site_button(action: str, words: str, asked: Iterable[tuple[str, str, str]], sure: str) -> Html:
    return button(action, words, asked=asked, sure=sure, choices={"site": _LIST})


def roll_back_button(version: int) -> Html:
    """Return the button that leads back to a version."""
    sure = f"A new version with the head of version {version} is made; every site follows by itself."
    return button("roll-back", f"To {version}", [("version", str(version))], sure=sure)
