"""What to do about drift, by what has moved."""

from collections.abc import Sequence

from fedmedclip.edge_client.serving.drift.reference import Kind

_LOOK = "look at some of this month's images first: a new device, protocol or sender explains most of it"
_ADAPT = (
    "fit the heads to the images as they are now, labels are not needed: `fedmedclip adapt`, then "
    "`fedmedclip calibrate` with some that have labels"
)
_CALIBRATE = (
    "calibrate the sets again with this month's images, a hundred or more that a reader has labelled: "
    "`fedmedclip calibrate`"
)
_CENTRE = "call the centre, with this report: other hospitals may see the same, and a new run may be due"


def advice_on(moved: Sequence[Kind]) -> list[str]:
    """Return lines for a person who sees that these kinds have moved, the first thing to do first."""
    if not moved:
        return []
    what = set(moved)
    if "unlike" in what and "embeddings" not in what:
        return [
            "some images are of another kind: other views, body parts or series; find out who sends them, "
            "and keep them away if they are not meant for these classes",
            f"if they are meant: {_ADAPT}",
        ]
    if what == {"classes"}:
        return [
            "the images look as in training, and show other findings: another mix of patients; answers hold, "
            "but the probabilities expect the old mix",
            _CALIBRATE,
        ]
    if what <= {"sets", "classes"}:
        return ["the heads are less sure than in training, though the images look the same", _CALIBRATE]
    if what == {"embeddings"}:
        return [
            _LOOK,
            "the answers have not moved: measure them with some labelled images, `fedmedclip evaluate`",
            f"if they are worse: {_ADAPT}",
        ]
    return [_LOOK, _ADAPT, _CENTRE]
