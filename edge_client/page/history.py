"""Drawing what happened at the site: a time line, and the events in words."""

from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.protocol.pages.charts import Lane, time_line
from fedmedclip.protocol.pages.elements import Html, element, joined, moment, table

_LANES = {
    "Trained": ("▲", ("trained",)),
    "Delivered": ("●", ("delivered",)),
    "Refused or held": ("✕", ("refused", "declined", "withheld")),
    "Decisions": ("◆", ("approved", "refused the plan")),
    "Versions": ("■", ("version",)),
}
_MOST_ROWS = 60
# A page is to be light on a phone.
_MOST_MARKS = 40


def draw_history(view: SiteView, may_change: bool) -> Html:
    """Return the inside of "What happened"."""
    history = view.history
    if history is None or not history.events:
        return element("p", "Nothing has happened yet.", class_="faint")
    lanes = [Lane("Connected", history.connected)]
    for name, (symbol, kinds) in _LANES.items():
        marks = [(event.at, symbol, event.words) for event in history.events if event.kind in kinds]
        if marks:
            lanes.append(Lane(name, (), marks[-_MOST_MARKS:]))
    marked = ", ".join(f"{lane.name.lower()} ({len(lane.marks)})" for lane in lanes[1:])
    words = "When this site was connected" + (f", and the newest of: {marked}." if marked else ".")
    newest = list(reversed(history.events))[:_MOST_ROWS]
    return joined(
        [
            time_line("This site", words, lanes, history.since, history.until),
            table(
                "Events, newest first",
                ["When", "What", "About"],
                [(moment(event.at), event.kind, event.words) for event in newest],
                label="Events",
            ),
        ]
    )
