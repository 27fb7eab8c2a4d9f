"""What is trained, and in plain words how."""

from fedmedclip.protocol.messages import Plan


def plan_in_words(plan: Plan) -> list[tuple[str, str]]:
    """Return what the run asks for, as (name, words)."""
    settings = ", ".join(f"{name} = {value}" for name, value in plan.training.items())
    return [
        ("Method", plan.method),
        ("Settings", settings or "the usual ones"),
        ("Rounds", str(plan.rounds)),
        ("An update is encoded as", plan.uplink_codec),
        ("A version is encoded as", plan.downlink_codec),
        ("Sums under masks", "yes" if plan.secure is not None else "no"),
        ("Bundle (SHA-256)", plan.bundle_digest.hex()),
    ]
