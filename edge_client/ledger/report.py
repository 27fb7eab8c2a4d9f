"""The printable report for a hospital's data protection officer: one HTML file that needs no other."""

from collections.abc import Sequence
from html import escape

import msgspec

from fedmedclip.edge_client.ledger.account import Account
from fedmedclip.edge_client.ledger.kinds import SENT, UNKNOWN
from fedmedclip.edge_client.ledger.listing import moment_words
from fedmedclip.edge_client.ledger.replay import Replay, replay_lines
from fedmedclip.edge_client.ledger.totals import Count
from fedmedclip.edge_client.ledger.verification import Verdict
from fedmedclip.protocol.visible import visible

_STYLE = """
@page { size: A4; margin: 18mm 16mm }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: #000; background: #fff; margin: 0 auto;
  padding: 1.5rem 1rem 3rem; max-width: 60rem }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 1rem }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; padding-top: .5rem; border-top: 1px solid #000;
  break-after: avoid }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem; break-after: avoid }
p, li, td, th { overflow-wrap: break-word }
.box { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums;
  margin: .5rem 0 }
caption { text-align: left; padding: .25rem 0 }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #666; text-align: right; vertical-align: top }
thead th { border-bottom: 2px solid #000; vertical-align: bottom }
td { white-space: nowrap }
.words { text-align: left; min-width: 6rem; white-space: normal }
.digest { text-align: left; white-space: normal; font-family: ui-monospace, monospace; font-size: .75rem;
  word-break: break-all;
  min-width: 12rem }
tr { break-inside: avoid }
.verdict { border: 2px solid #000; padding: .6rem .8rem; font-weight: 600 }
.signature { margin-top: 3rem; border-top: 1px solid #000; width: 20rem }
@media print { body { font-size: 10.5pt; padding: 0; max-width: none } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

Facts = Sequence[tuple[str, str]]


class Subject(msgspec.Struct, frozen=True):
    """Whose report it is, and what is set and was decided there; `made_at` in seconds since 1970."""

    site: str
    federation: str
    site_key: str
    coordinator_key: str | None
    software: str
    made_at: float
    settings: list[tuple[str, str]]
    decisions: list[tuple[str, str]]
    privacy: list[str]


def report_html(subject: Subject, account: Account, verdict: Verdict, replayed: Replay | None) -> str:
    """Return the page. `replayed` is None where nothing could be made again, which is said."""
    title = f"What left {subject.site}: record of messages to federation {subject.federation}"
    body = [
        *_who(subject, account),
        *_found(verdict),
        *_kinds(account),
        *_months(account),
        *_privacy(subject),
        *_allowed(subject),
        *_replayed(replayed),
        *_updates(account),
        *_events(account),
        *_bounds(),
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{_text(title)}</title>
<style>{_STYLE}</style></head>
<body><main>
<h1>{_text(title)}</h1>
{chr(10).join(body)}
</main></body></html>
"""


def _who(subject: Subject, account: Account) -> list[str]:
    period = "no message yet"
    if account.first_at is not None and account.last_at is not None:
        period = f"{moment_words(account.first_at)} to {moment_words(account.last_at)}"
    return [
        "<h2>Who, and when</h2>",
        _facts(
            [
                ("Site", subject.site),
                ("Federation", subject.federation),
                ("Coordinator's public key", subject.coordinator_key or "not known yet"),
                ("This site's public key", subject.site_key),
                ("Period of the record", period),
                ("Report made", f"{moment_words(subject.made_at)}, by fedmedclip {subject.software}"),
            ]
        ),
        "<p>Every message that this site's software sent to the federation or received from it has an entry "
        "in the record: when, on which topic, of which kind, its size, and the SHA-256 of its bytes. Images, "
        "their embeddings, labels, file names, patients' names and identifiers, and the private head are in "
        "no message, and not in the record.</p>",
    ]


def _found(verdict: Verdict) -> list[str]:
    compared = (
        "It was compared with the end that the site's state knows."
        if verdict.known_to_state is not None
        else "The site's state knows nothing of it, so that its end may be missing."
    )
    words = f"The record is whole: {verdict.entries:,} entries, each linked to the one before. {compared}"
    if not verdict.whole:
        words = "The record is NOT whole. What is wrong is listed here."
    lines = ["<h2>Whether the record is whole</h2>", f'<p class="verdict">{_text(words)}</p>']
    if verdict.faults:
        lines += ["<ul>", *(f"<li>{_text(fault)}</li>" for fault in verdict.faults), "</ul>"]
    return [
        *lines,
        f"<p>Newest entry: number {verdict.newest_number}, hash</p>",
        f'<p class="digest">{_text(verdict.newest_hash)}</p>',
        "<p>Keep this page. With this number and hash, <code>fedmedclip ledger verify --against NUMBER:HASH"
        "</code> shows later that nothing up to here was changed since.</p>",
    ]


def _kinds(account: Account) -> list[str]:
    rows = [[kind, f"{count.messages:,}", f"{count.bytes:,}"] for kind, count in sorted(account.sent.items())]
    came = [
        [kind, f"{count.messages:,}", f"{count.bytes:,}"] for kind, count in sorted(account.received.items())
    ]
    lines = [
        "<h2>What left, and what it can and cannot say about a patient</h2>",
        _table("Messages that left, by kind", ["Kind", "Messages", "Bytes"], rows),
    ]
    for kind in sorted(account.sent):
        words = SENT.get(kind, UNKNOWN)
        lines += [
            f"<h3>{_text(kind)}</h3>",
            f"<p><strong>Holds:</strong> {_text(words.holds)}</p>",
            f"<p><strong>About a patient:</strong> {_text(words.says)}</p>",
        ]
    return [*lines, "<h2>What came</h2>", _table("Messages received", ["Kind", "Messages", "Bytes"], came)]


def _months(account: Account) -> list[str]:
    rows = []
    for month, kinds in sorted(account.months.items()):
        total, updates = Count(), kinds.get("Update", Count())
        for count in kinds.values():
            total.add(count.messages, count.bytes)
        rows.append([month, f"{total.messages:,}", f"{total.bytes:,}", f"{updates.messages:,}"])
    heads = ["Month (UTC)", "Messages", "Bytes", "of these updates"]
    return ["<h2>By month</h2>", _table("Messages that left", heads, rows)]


def _privacy(subject: Subject) -> list[str]:
    lines = subject.privacy or ["No differential privacy: nothing was released under it."]
    return ["<h2>Differential privacy</h2>", *(f"<p>{_text(line)}</p>" for line in lines)]


def _allowed(subject: Subject) -> list[str]:
    lines = ["<h2>What this site allows</h2>", _facts(subject.settings)]
    if subject.decisions:
        lines += ["<h3>Decisions on plans</h3>", _facts(subject.decisions)]
    return lines


def _replayed(replayed: Replay | None) -> list[str]:
    lines = ["<h2>Whether the digests are those of what was computed here</h2>"]
    if replayed is None:
        return [*lines, "<p>Nothing was made again for this report: this site has no key or state yet.</p>"]
    words = (
        "The messages below were made again from what the site keeps, and compared with the record by their "
        "SHA-256. Of older updates it is not kept what they were made of."
    )
    return [
        *lines,
        f"<p>{words}</p>",
        "<ul>",
        *(f"<li>{_text(one)}</li>" for one in replay_lines(replayed)),
        "</ul>",
    ]


def _updates(account: Account) -> list[str]:
    rows = [
        [
            str(sent.number),
            moment_words(sent.at),
            str(sent.run),
            f"{sent.round_number}" + (f" (attempt {sent.attempt})" if sent.attempt else ""),
            f"{sent.bytes:,}",
            sent.sha256,
        ]
        for sent in account.updates
    ]
    heads = ["Entry", "Sent first", "Run", "Round", "Bytes", "SHA-256 of its message"]
    return ["<h2>Every update</h2>", _table("Updates that left", heads, rows)]


def _events(account: Account) -> list[str]:
    if not account.events:
        return []
    rows = [[str(event.number), moment_words(event.at), event.kind, event.note] for event in account.events]
    return [
        "<h2>What happened to the record</h2>",
        _table("Events", ["Entry", "When", "What", "Words"], rows),
    ]


def _bounds() -> list[str]:
    return [
        "<h2>What this report does not show</h2>",
        "<ul><li>It is of this software alone. What other programs on this machine, its users or its backups "
        "send is not in it.</li>",
        "<li>The record and the state that knows its end lie on the same machine. Whoever may write both can "
        "write another record, with right hashes; what was noted on paper shows it.</li>",
        "<li>It says what was handed to the network, once for each message, before it went. Whether it "
        "arrived is another question; the network may repeat it.</li>",
        "<li>That nothing can be told of a patient by an update is not claimed: see the words on updates "
        "above.</li></ul>",
        '<p class="signature">Date, name, signature</p>',
    ]


def _facts(facts: Facts) -> str:
    rows = "".join(
        f'<tr><th scope="row" class="words">{_text(name)}</th><td class="words">{_text(value)}</td></tr>'
        for name, value in facts
    )
    return f'<div class="box"><table><tbody>{rows}</tbody></table></div>'


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"<p>{_text(caption)}: none.</p>"
    kinds = [_class(head) for head in heads]
    head = "".join(f'<th scope="col"{kind}>{_text(one)}</th>' for one, kind in zip(heads, kinds, strict=True))
    body = "".join(
        "<tr>"
        + f'<th scope="row"{kinds[0]}>{_text(first)}</th>'
        + "".join(f"<td{kind}>{_text(one)}</td>" for one, kind in zip(rest, kinds[1:], strict=True))
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="box" tabindex="0" role="region" aria-label="{_text(caption)}"><table>'
        f"<caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _class(head: str) -> str:
    if head.startswith("SHA-256"):
        return ' class="digest"'
    return ' class="words"' if head in ("Kind", "What", "Words", "When", "Sent first", "Month (UTC)") else ""


def _text(words: str) -> str:
    return escape(visible(words))
