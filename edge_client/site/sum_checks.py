"""What a site demands of an aggregator's lists before it gives anything to a sum under masks."""

from collections.abc import Callable, Sequence

from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import is_sealed_by
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import Confirmation, Confirmations, Listed, MaskKeys, Participants, Plan
from fedmedclip.protocol.secure_aggregation.shamir import threshold_of

KeyOf = Callable[[str], bytes | None]
"""The key of a member by its name, None for nobody's; as the roster has it."""


def check_participants(
    participants: Participants, plan: Plan, arrays: int, federation: str, key_of: KeyOf | None
) -> None:
    """Raise MessageError unless enough sites are listed, each once and under keys that it has signed itself.

    `arrays` is how many arrays the head has; `key_of` is None where there is no roster.
    """
    assert plan.secure is not None
    names = [entry.site for entry in participants.listed]
    if names != sorted(set(names)):
        raise MessageError("the list of participants is not sorted, or names one twice")
    if len(names) < plan.secure.least:
        raise MessageError(
            f"the list of participants has {len(names)} sites, this run's sums are of at least "
            f"{plan.secure.least}"
        )
    if len(participants.bounds) != arrays:
        raise MessageError("the list of participants has bounds for another head")
    for entry in participants.listed:
        _check_entry(entry, participants.round_number, plan, federation, key_of)


def _check_entry(entry: Listed, round_number: int, plan: Plan, federation: str, key_of: KeyOf | None) -> None:
    key = _key_of_entry(entry, key_of)
    if key is None and key_of is not None:
        raise MessageError(f"{entry.site} is listed, but is no member by the roster")
    if key is None:
        raise MessageError(f"{entry.site} is listed without a key, and there is no roster here")
    keys = MaskKeys(round_number, entry.cipher_key, entry.mask_key, False)
    if not is_sealed_by(keys, entry.signature, topics.up(federation, entry.site), key, plan.identity):
        raise MessageError(f"{entry.site} is listed with keys that it has not signed")


def check_places(places: Sequence[int], participants: Participants, own: int, what: str) -> None:
    """Raise MessageError unless places in a try are in order, the own one among them, and enough."""
    known, threshold = len(participants.listed), threshold_of(len(participants.listed))
    if list(places) != sorted(set(places)) or max(places, default=0) >= known or own not in places:
        raise MessageError(f"the list of {what} is not one of places in this try, with this site's")
    if len(places) < threshold:
        raise MessageError(
            f"the list of {what} has {len(places)} sites, nothing is unmasked for fewer than {threshold}"
        )


def confirmed_by(
    confirmations: Confirmations,
    own: Confirmation,
    participants: Participants,
    plan: Plan,
    federation: str,
    key_of: KeyOf | None,
) -> set[int]:
    """Return the places of the survivors who have signed the very list that this site has."""
    confirmed = set()
    for place, signature in confirmations.signatures:
        if place not in own.survivors:
            continue
        entry = participants.listed[place]
        key, topic = _key_of_entry(entry, key_of), topics.up(federation, entry.site)
        if key is not None and is_sealed_by(own, signature, topic, key, plan.identity):
            confirmed.add(place)
    return confirmed


def _key_of_entry(entry: Listed, key_of: KeyOf | None) -> bytes | None:
    return entry.public_key if key_of is None else key_of(entry.site)
