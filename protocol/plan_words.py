"""A plan in plain words and as one hash: what a hospital's operator reads before it is approved."""

import hashlib

import msgspec

from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.signature import fingerprint

AWAITS_CONSENT = "this hospital's operator has not approved the plan yet"
"""What a site says in `Join.cannot` until its operator decides."""
REFUSED = "refused by this hospital"
"""What `Join.cannot` begins with once its operator has refused; a reason may follow after a colon."""

MORE_ROUNDS = "this hospital approved"
"""What an Abstain begins with where its operator has approved fewer rounds than the run has by now."""

# Settings are sorted by name: the same plan has the same bytes however it came.
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_TRAINED, _STATISTICS = "the change of the shared head", "statistics of its images by class"
METHODS = {
    "clip-adapter": (_TRAINED, "a small bottleneck behind the encoder is trained"),
    "faa-clip": (
        _TRAINED,
        "an attention over the encoder's output is trained, against a judge of where images are from, which "
        "stays here",
    ),
    "facmic": (
        _TRAINED,
        "an attention over the encoder's output is trained, and drawn towards public reference images",
    ),
    "fedclip": (_TRAINED, "an attention over the encoder's output is trained"),
    "fedmedclip": (
        _TRAINED,
        "an attention over the encoder's output is trained together with a classifier, which stays here",
    ),
    "linear-probe": (_TRAINED, "one linear layer behind the encoder is trained"),
    "one-message": (
        _STATISTICS,
        "statistics of the images by class are told, once; what is made of them and of the own images stays "
        "here",
    ),
    "whitened-memory": (
        _STATISTICS,
        "statistics of the images by class are told, once; a memory of the own images stays here",
    ),
}
"""By method: what leaves a site in an update, and what is done, as half sentences."""
_OF_ANOTHER = ("what the method shares", "a method of another distribution: ask its author what it shares")


def terms_hash(plan: Plan) -> str:
    """Return the SHA-256, in 64 hexadecimal digits, of what consent is about: all that a plan says but its
    `revision` and whether it is `paused`.

    Its bytes are those of docs/protocol.md, "Consent". Fewer rounds, a smaller norm or a key that the roster
    has rotated make another hash, and are covered by an approval all the same.
    """
    return _hash("terms", msgspec.structs.replace(plan, revision=1, paused=False))


def scope_hash(plan: Plan) -> str:
    """Return the SHA-256 of what an approval has to be for, word by word, to cover a plan.

    Left out are what an approval bounds (`rounds`, `maximum_update_norm`) and the key, which a roster may
    rotate.
    """
    scope = msgspec.structs.replace(
        plan, revision=1, paused=False, rounds=1, maximum_update_norm=1.0, aggregator_key=bytes(32)
    )
    return _hash("scope", scope)


def _hash(what: str, plan: Plan) -> str:
    return hashlib.sha256(f"fedmedclip {what} 1\n".encode() + _ENCODER.encode(plan)).hexdigest()


def plan_in_words(plan: Plan, update_bytes: int | None = None) -> list[tuple[str, str]]:
    """Return what a plan asks for as (title, sentence) pairs, for the operator of a hospital.

    `update_bytes` is about how large an update is, None where that is not known. The plan's own texts are as
    they came: whoever prints them makes them visible.
    """
    told, done = METHODS.get(plan.method, _OF_ANOTHER)
    return [
        (
            "Coordinator",
            f"whoever holds the key with fingerprint {_spaced(fingerprint(plan.aggregator_key))}",
        ),
        ("Run", f"number {plan.number}, begun {plan.begun}, with seed {plan.seed}"),
        ("Method", f"{plan.method}: {done}"),
        ("Settings", _settings(plan)),
        ("Rounds", f"at most {plan.rounds}"),
        ("Start", _start(plan)),
        ("Bundle", f"SHA-256 {plan.bundle_digest.hex()}, embeddings of {plan.embedding_size} values"),
        ("An update from here", _update(plan, update_bytes)),
        ("A version from there", f"encoded as {plan.downlink_codec}"),
        ("Length of an update", f"its norm is at most {plan.maximum_update_norm:g}"),
        ("Privacy", _privacy(plan)),
        ("Secure aggregation", _secure(plan)),
        (
            "What leaves",
            f"{told} in each round, and how many images it is made of; a few figures on how "
            "good each version is here, unless [policy] keeps them; whether this site is there, its version "
            "of the software, and why it does not take part if it does not",
        ),
        (
            "What never leaves",
            "images, file names and patients' data, the embeddings of single images, and the private head",
        ),
    ]


def _settings(plan: Plan) -> str:
    return ", ".join(f"{name} = {value}" for name, value in plan.training.items()) or "the usual ones"


def _start(plan: Plan) -> str:
    if plan.start is None:
        return "from a head that is drawn from the seed"
    return f"from the head with SHA-256 {plan.start.hex()}, of a run before"


def _update(plan: Plan, size: int | None) -> str:
    if plan.secure is not None:
        return f"encoded as {plan.secure.codec}, under masks"
    return f"encoded as {plan.uplink_codec}" + ("" if size is None else f", about {size / 1000:.1f} kB")


def _privacy(plan: Plan) -> str:
    terms = plan.privacy
    if terms is None:
        return "no differential privacy is asked for"
    whose = terms.unit if terms.unit == "image" else f"patient of at most {terms.images_per_patient} images"
    return (
        f"differential privacy: epsilon {terms.epsilon:g} and delta {terms.delta:g} for each {whose} over "
        f"the whole run, which lasts for {terms.releases} updates; classes below "
        f"{terms.minimum_group_size} images are left out of statistics"
    )


def _secure(plan: Plan) -> str:
    if plan.secure is None:
        return "none: the coordinator sees this site's updates by themselves"
    return f"the coordinator sees only sums of the updates of at least {plan.secure.least} sites"


def _spaced(key_fingerprint: bytes) -> str:
    return key_fingerprint.hex(" ", 2)
