"""What to know before prediction sets are believed, in lines for a person."""

from fedmedclip.edge_client.heads.assurance import AssuranceSettings
from fedmedclip.edge_client.heads.heads_file import ZERO_SHOT_ANSWERS, Heads
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.visible import visible


def remarks_on(heads: Heads, bundle: Bundle, wanted: AssuranceSettings) -> list[str]:
    """Return what a person should know of heads that were calibrated."""
    assert heads.assurance is not None
    metadata, names, remarks = heads.assurance.metadata, bundle.manifest.class_names, []
    unlimited = [name for name, limit in zip(names, metadata.thresholds, strict=True) if limit is None]
    if unlimited:
        which = "every class" if len(unlimited) == len(names) else ", ".join(map(visible, unlimited))
        whose = "of the class, " if wanted.class_conditional else ""
        remarks.append(
            f"too few patients {whose}for level {wanted.level:g}: {which} is in every set; give more images "
            "or a lower --level"
        )
    if metadata.novelty is None:
        remarks.append("too few patients to say when an image is unlike what was seen: each is answered")
    elif metadata.novelty.false_alarms > wanted.false_alarms:
        remarks.append(
            f"so few patients can promise no less than {metadata.novelty.false_alarms:.1%} false alarms "
            f"where {wanted.false_alarms:.1%} were asked for"
        )
    if heads.zero_shot_answers:
        remarks.append(f"{ZERO_SHOT_ANSWERS}, and it is zero-shot that was calibrated")
    return remarks
