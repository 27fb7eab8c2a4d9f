"""Drawing where the site stands: what it does, and whether somebody is waited for."""

from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.protocol.pages.elements import Html, badge, element, facts, joined, moment


def draw_glance(view: SiteView, may_change: bool) -> Html:
    """Return the inside of "At a glance"."""
    glance = view.glance
    if glance is None:
        return element("p", "This site has not begun yet.", class_="faint")
    plan = view.plan
    notice = None
    if plan is not None and plan.awaits_decision:
        where = element("a", "Read the plan and decide", href="#plan")
        notice = element("p", "A plan waits for your decision. ", where, ".", class_="notice")
    kept = [] if view.versions is None else view.versions.kept
    active = next((version for version in kept if version.active), None)
    return joined(
        [
            element("p", badge(glance.tone, glance.doing), class_="headline"),
            notice,
            facts(
                [
                    ("Connection", _connection(glance.connected, glance.since)),
                    ("Taking part", "yes, the coordinator has admitted this site" if glance.joined else "no"),
                    ("Run", _run(glance.run) if glance.run else "none has come yet"),
                    ("Rounds", f"{max(glance.version, 0)} of {glance.rounds}" if glance.run else None),
                    ("Answers images here", glance.answers or None),
                    ("How good that is", _how_good(active.balanced_accuracy) if active else None),
                    ("Software", f"fedmedclip {view.software}"),
                ]
            ),
        ]
    )


def _connection(connected: bool, since: float) -> Html:
    state = badge("good", "connected") if connected else badge("bad", "not connected")
    return joined([state, element("br"), "since ", moment(since)]) if since else state


def _run(number: int) -> Html:
    return joined(["begun ", moment(float(number))])


def _how_good(balanced_accuracy: float | None) -> str:
    if balanced_accuracy is None:
        return "not measured: the validation split has no images"
    return f"balanced accuracy {balanced_accuracy:.1%} on this hospital's validation images"
