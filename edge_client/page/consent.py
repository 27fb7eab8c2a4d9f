"""Drawing the plan that the coordinator asks for, what was decided, and the buttons that decide."""

from fedmedclip.edge_client.page.view import Decision, Plan, SiteView
from fedmedclip.protocol.pages.elements import (
    Child,
    Html,
    Kind,
    badge,
    button,
    element,
    facts,
    folded,
    joined,
    moment,
    table,
)

_REASON = ("reason", "Reason", "text")


def draw_plan(view: SiteView, has_buttons: bool) -> Html:
    """Return the inside of "The plan and consent"."""
    plan = view.plan
    if plan is None or not plan.terms:
        return element(
            "p", "No plan has come yet: it does once the coordinator has begun a run.", class_="faint"
        )
    return joined(
        [
            element("p", badge(*_standing(plan)), class_="headline"),
            _how_to_decide(plan, has_buttons),
            _in_words(plan),
            element("p", "The plan's hash, which your decision is of: ", element("code", plan.terms)),
            table(
                "Decisions, newest first",
                ["When", "Decision", "By", "Run", "Rounds", "Reason", "Hash"],
                [_row(decision) for decision in reversed(plan.decisions)],
                numbers=[4],
            ),
        ]
    )


def _standing(plan: Plan) -> tuple[Kind, str]:
    if plan.awaits_decision:
        return "waiting", f"Waits for your decision. {plan.standing}".strip()
    return ("good" if plan.approved else "bad"), plan.standing


def _how_to_decide(plan: Plan, has_buttons: bool) -> Html | None:
    if has_buttons:
        fields = [("terms", plan.terms)]
        approve = button(
            "approve", "Approve", fields, optional=[_REASON],
            sure="This site then trains what the plan says, and its updates leave the hospital.",
        )  # fmt: skip
        refuse = button(
            "refuse", "Refuse", fields, optional=[_REASON],
            sure="This site then takes no part; the reason is told to the coordinator.",
        )  # fmt: skip
        may_refuse = plan.awaits_decision or plan.approved
        return element("div", None if plan.approved else approve, refuse if may_refuse else None)
    if plan.awaits_decision:
        commands = joined(
            [element("code", "fedmedclip site approve"), " or ", element("code", "fedmedclip site refuse")]
        )
        return element("p", "Nothing is trained and nothing leaves before you decide: ", commands, ".")
    return None


def _in_words(plan: Plan) -> Html:
    """Return the plan: open for whoever has to decide, folded for whoever has approved it."""
    words = facts(((sentence.title, sentence.words) for sentence in plan.words), sentences=True)
    return folded("The plan in words", words) if plan.approved else words


def _row(decision: Decision) -> list[Child]:
    return [
        moment(decision.at),
        badge("good", "approved") if decision.approved else badge("bad", "refused"),
        decision.by,
        moment(float(decision.run)) if decision.run else "in advance",
        decision.rounds or "",
        decision.reason,
        element("code", decision.terms[:16]),
    ]
