"""Drawing what left the site and what came, beside what may leave."""

from fedmedclip.edge_client.page.view import Ledger, Privacy, Recorded, SiteView, Verification
from fedmedclip.protocol.pages.charts import bar_chart
from fedmedclip.protocol.pages.elements import (
    Child,
    Html,
    badge,
    button,
    bytes_in_words,
    element,
    facts,
    folded,
    joined,
    moment,
    table,
)

_LONGEST_NOTE = 60
_DIRECTIONS = {"out": "left", "in": "came", "here": "the ledger itself"}


def draw_record(view: SiteView, has_button: bool, has_report: bool) -> Html:
    """Return the inside of "What left and what came", with what verifies it and reports on it."""
    ledger = view.ledger
    parts: list[Child] = []
    if ledger is not None:
        parts += [
            element(
                "p", "Every message is written to this hospital's ledger before it is sent, or acted on.",
                class_="faint",
            ),
            facts(_totals(ledger)),
            element("p", *_verified(ledger.verified)),
            button("verify", "Verify the ledger now") if has_button else None,
            element("p", element("a", "Report for the data protection officer", href="/report"))
            if has_report
            else None,
            _by_day(ledger),
            folded("By kind of message", _by_kind(ledger)),
            folded("The newest entries of the ledger", _newest(ledger)),
        ]  # fmt: skip
    if view.privacy is not None:
        parts.append(_privacy(view.privacy))
    return joined(parts)


def _totals(ledger: Ledger) -> list[tuple[str, Child]]:
    return [
        ("Left today", _of_limit(ledger.sent_today.bytes, ledger.bytes_per_day)),
        ("Left in all", _of_limit(ledger.sent.bytes, ledger.bytes_in_all)),
        ("Came today", bytes_in_words(ledger.received_today.bytes)),
        ("Came in all", bytes_in_words(ledger.received.bytes)),
        ("Rounds contributed to", None if ledger.rounds is None else _rounds(ledger)),
    ]


def _of_limit(size: int, limit: int | None) -> Child:
    if limit is None:
        return f"{bytes_in_words(size)}, without a limit"
    words = f"{bytes_in_words(size)} of {bytes_in_words(limit)} ({size / max(limit, 1):.0%})"
    return joined([words, " ", badge("bad", "limit reached")]) if size >= limit else words


def _rounds(ledger: Ledger) -> str:
    return f"{ledger.rounds}" + ("" if ledger.rounds_in_all is None else f" of {ledger.rounds_in_all}")


def _verified(found: Verification | None) -> list[Child]:
    if found is None:
        return [badge("quiet", "The ledger has not been verified since this page began.")]
    if found.faults:
        words = f"The ledger is not whole: {found.faults[0]}"
        more = f" (and {len(found.faults) - 1} more: fedmedclip ledger verify)" if found.faults[1:] else ""
        return [badge("bad", words + more), " Verified ", moment(found.at), "."]
    whole = badge("good", f"The ledger is whole: {found.entries} entries, unchanged and none missing.")
    return [whole, " Verified ", moment(found.at), "."]


def _by_day(ledger: Ledger) -> Html:
    bars = [(float(-day.days_ago), float(day.bytes)) for day in ledger.days]
    busiest = max((day.bytes for day in ledger.days), default=0)
    words = f"Bytes that left on each of the last {len(bars)} days; at most {bytes_in_words(busiest)}"
    limit = ledger.bytes_per_day
    words += "; no limit is set." if limit is None else f"; the limit is {bytes_in_words(limit)}."
    title = "Bytes that left, by day"
    chart = bar_chart(title, words, bars, "days from today", limit, "limit")
    return joined([element("h3", title), chart])


def _by_kind(ledger: Ledger) -> Html:
    rows = [
        (
            of.kind,
            _DIRECTIONS.get(of.direction, of.direction),
            of.today.messages,
            bytes_in_words(of.today.bytes),
            of.in_all.messages,
            bytes_in_words(of.in_all.bytes),
        )
        for of in ledger.kinds
        if of.direction in ("out", "in")
    ]
    columns = ["Kind", "Way", "Messages today", "Bytes today", "Messages in all", "Bytes in all"]
    return table("Messages and bytes by kind", columns, rows, numbers=[2, 3, 4, 5])


def _newest(ledger: Ledger) -> Html:
    return table(
        f"The newest {len(ledger.newest)} entries",
        ["Entry", "When", "Way", "Kind", "Bytes", "About", "SHA-256"],
        [_row(entry) for entry in ledger.newest],
        numbers=[0, 4],
    )


def _row(entry: Recorded) -> list[Child]:
    return [
        entry.number,
        moment(entry.at),
        _DIRECTIONS.get(entry.direction, entry.direction),
        entry.kind,
        entry.bytes,
        entry.note if len(entry.note) <= _LONGEST_NOTE else f"{entry.note[:_LONGEST_NOTE]} …",
        element("code", entry.sha256[:16]) if entry.bytes else "",
    ]


def _privacy(privacy: Privacy) -> Html:
    spent = f"epsilon {privacy.spent:.3g}"
    allowed = "no limit is set" if privacy.epsilon is None else f"of {privacy.epsilon:g} that you allow"
    return joined(
        [
            element("h3", "Privacy budget"),
            facts(
                [
                    ("Spent by all runs", f"{spent}, {allowed}"),
                    ("At delta", f"{privacy.delta:g}"),
                    ("Updates under privacy", privacy.releases),
                ]
            ),
        ]
    )
