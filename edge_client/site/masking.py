"""A site's part in sums of which nobody sees the parts: see `protocol.secure_aggregation`.

    keys -> list of participants -> shares for each -> masked update -> list of survivors -> what unmasks it

All secrets live in memory, for one try of one round: a site that is started again has no part in the try of
before, so it cannot give away more of it than it gave. On disk is only in which round it has shown shares; in
that round it takes part in no other try, or two sums might differ by one site's update.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedmedclip.edge_client.site.masked_change import MaskedChange, masked_bytes, masked_change
from fedmedclip.edge_client.site.roles import Identity
from fedmedclip.edge_client.site.run import Run
from fedmedclip.edge_client.site.state import OutgoingUpdate, SiteState
from fedmedclip.edge_client.site.sum_checks import (
    KeyOf,
    check_participants,
    check_places,
    confirmed_by,
)
from fedmedclip.protocol.codecs.error_feedback import Compressed
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import (
    Anew,
    Block,
    BlockRequest,
    Complaint,
    Confirmation,
    Confirmations,
    HeadRequest,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Message,
    Participants,
    Reveal,
    RoutedShares,
    SealedShares,
    Survivors,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.secure_aggregation.integers import modulus_bits, pack, reduced
from fedmedclip.protocol.secure_aggregation.masks import (
    Words,
    pair_masks,
    private_key,
    public_half,
    self_mask,
)
from fedmedclip.protocol.secure_aggregation.shamir import SECRET_BYTES, split, threshold_of
from fedmedclip.protocol.secure_aggregation.shares import (
    PeerShares,
    ShareCommitments,
    commitment,
    open_shares,
    seal_shares,
)

log = logging.getLogger("fedmedclip.site")


@dataclass
class _Try:
    """The one try that a set of keys is for, as far as it has gone; answers are kept to be given again."""

    participants: Participants
    index: int
    answer: MaskShares
    held: dict[int, PeerShares] = field(default_factory=dict)
    routed: RoutedShares | None = None
    masked: tuple[Message, bytes] | None = None
    survivors: list[int] | None = None
    reveal: Reveal | None = None

    @property
    def digest(self) -> bytes:
        return self.answer.try_digest

    @property
    def threshold(self) -> int:
        return threshold_of(len(self.participants.listed))


@dataclass
class _Keys:
    """Three secrets of 16 bytes and what follows from them, for one try."""

    offer: MaskKeys
    cipher_seed: bytes
    mask_seed: bytes
    self_seed: bytes


class Masking:
    """Takes part in the sums of a run. `key_of` is None where no roster says whose key is whose."""

    def __init__(
        self,
        identity: Identity,
        state: SiteState,
        run: Run,
        maximum_message_bytes: int,
        key_of: KeyOf | None = None,
        compressed: Callable[[int, Compressed], None] = lambda round_number, compressed: None,
    ) -> None:
        self._identity = identity
        self._state = state
        self._run = run
        self._key_of = key_of
        self._compressed = compressed
        self._maximum_message_bytes = maximum_message_bytes
        self._keys: _Keys | None = None
        self._try: _Try | None = None
        self._warned = False

    @property
    def asked_for(self) -> bool:
        """Whether the run's updates go under masks."""
        return self._run.plan is not None and self._run.plan.secure is not None

    @property
    def masked_bytes(self) -> int:
        """About how many bytes a masked update of the run has, at most."""
        plan = self._run.plan
        return 0 if plan is None else masked_bytes(plan, self._run.specification(plan))

    def limit_messages(self, maximum_message_bytes: int) -> None:
        """Cut masked updates into blocks of another size from now on."""
        self._maximum_message_bytes = maximum_message_bytes

    def offer(self, round_number: int) -> MaskKeys:
        """Return the keys for the next try of a round, or those of the try that is under way."""
        if self._keys is None or self._keys.offer.round_number != round_number:
            self._make_keys(round_number)
        assert self._keys is not None
        return self._keys.offer

    def take(self, message: Message) -> list[Message]:
        """Take a message of the aggregator and return the answer. Raises MessageError for what is refused.

        What is of another round or try than this site is in says nothing.
        """
        update = self._state.outgoing_update()
        if not self.asked_for or update is None or self._run.stored is None:
            return []
        match message:
            case Participants() if message.round_number == update.round_number:
                return self._take_participants(message, update)
            case RoutedShares() if self._is_of_try(message.try_digest):
                return self._take_shares(message, update)
            case Survivors() if self._is_of_try(message.try_digest):
                return self._confirm(message)
            case Confirmations() if self._is_of_try(message.try_digest):
                return self._reveal(message, update.round_number)
            case Anew() if self._try is None or self._is_of_try(message.try_digest):
                log.info("round %d begins anew: %s", update.round_number, message.reason)
                self._make_keys(update.round_number)
                return [self.offer(update.round_number)]
        return []

    def blocks(self, request: BlockRequest) -> list[Block]:
        """Return the blocks of the masked update that are asked for."""
        if self._try is None or self._try.masked is None:
            return []
        message, data = self._try.masked
        assert isinstance(message, MaskedUpdate)
        if isinstance(message.payload, bytes) or message.payload.digest != request.object_digest:
            return []
        return [*blocks_of(data, message.payload, request.missing)]

    def _is_of_try(self, digest: bytes) -> bool:
        return self._try is not None and self._try.digest == digest

    def _make_keys(self, round_number: int) -> None:
        """Begin with keys that no try knows; all that was of the one before is forgotten."""
        cipher_seed, mask_seed, self_seed = (secrets.token_bytes(SECRET_BYTES) for _ in range(3))
        offer = MaskKeys(
            round_number,
            public_half(private_key(cipher_seed, "cipher key")),
            public_half(private_key(mask_seed, "mask key")),
            self._state.unmasked_round() == round_number,
        )
        self._keys = _Keys(offer, cipher_seed, mask_seed, self_seed)
        self._try = None

    def _take_participants(self, participants: Participants, update: OutgoingUpdate) -> list[Message]:
        keys = self._keys
        if keys is None or keys.offer.spent:
            return []
        if self._is_of_try(participants.digest):
            assert self._try is not None
            return [self._try.answer]
        index = self._own_place(participants, keys.offer)
        if index is None:
            return []
        if self._try is not None:
            # An aggregator that was started again lists keys that have been used: they serve no second time.
            self._make_keys(update.round_number)
            return [self.offer(update.round_number)]
        if self._key_of is None and not self._warned:
            self._warned = True
            log.warning(
                "there is no roster here: whose keys are in a sum is what the aggregator says, who could put "
                "sites of its own around this one"
            )
        plan, follower = self._run.plan, self._run.follower
        assert plan is not None
        assert follower is not None
        if participants.round_number != follower.version + 1:
            raise MessageError(
                f"round {participants.round_number} does not follow version {follower.version}"
            )
        arrays = len(self._run.specification(plan).tensors)
        check_participants(participants, plan, arrays, self._identity.federation, self._key_of)
        if participants.based and follower.inline_delta() is None:
            return [HeadRequest(follower.version - 1)]
        answer = self._make_shares(keys, participants, index)
        self._try = _Try(participants, index, answer)
        return [answer]

    def _own_place(self, participants: Participants, offer: MaskKeys) -> int | None:
        for index, entry in enumerate(participants.listed):
            if entry.site == self._identity.site:
                own = (entry.cipher_key, entry.mask_key) == (offer.cipher_key, offer.mask_key)
                return index if own else None
        return None

    def _make_shares(self, keys: _Keys, participants: Participants, index: int) -> MaskShares:
        listed, context = participants.listed, participants.digest
        threshold, cipher = threshold_of(len(listed)), private_key(keys.cipher_seed, "cipher key")
        shares = map(
            PeerShares,
            split(keys.self_seed, threshold, len(listed)),
            split(keys.mask_seed, threshold, len(listed)),
        )
        made = []
        for peer, (entry, share) in enumerate(zip(listed, shares, strict=True)):
            sealed = seal_shares(share, cipher, entry.cipher_key, (index, peer), context)
            known = share.commitments()
            made.append(SealedShares(sealed, known.self_seed, known.mask_seed))
        return MaskShares(context, commitment(keys.self_seed), made)

    def _take_shares(self, routed: RoutedShares, update: OutgoingUpdate) -> list[Message]:
        attempt, keys = self._try, self._keys
        assert attempt is not None
        assert keys is not None
        if attempt.routed is not None:
            if routed != attempt.routed:
                raise MessageError("a second list of those who made shares, in one try")
            return self._masked_messages(attempt)
        owners = [owner for owner, _ in routed.shares]
        check_places(owners, attempt.participants, attempt.index, "who made shares")
        cipher = private_key(keys.cipher_seed, "cipher key")
        for owner, shares in routed.shares:
            try:
                attempt.held[owner] = self._opened(shares, owner, attempt, cipher)
            except MessageError as error:
                return [Complaint(attempt.digest, owner, str(error))]
        attempt.routed = routed
        change = self._change_of(attempt.participants, update)
        data = self._mask(change, attempt, keys, owners)
        self._state.keep_residual(update.round_number, change.residual_bytes)
        self._compressed(update.round_number, change.compressed)
        payload = refer_to(data, self._maximum_message_bytes)
        attempt.masked = (MaskedUpdate(attempt.digest, payload), data)
        return self._masked_messages(attempt)

    def _masked_messages(self, attempt: _Try) -> list[Message]:
        assert attempt.masked is not None
        message, data = attempt.masked
        assert isinstance(message, MaskedUpdate)
        return [message, *blocks_of(data, message.payload)]

    def _opened(
        self, shares: SealedShares, owner: int, attempt: _Try, cipher: X25519PrivateKey
    ) -> PeerShares:
        opened = open_shares(
            shares.sealed,
            cipher,
            attempt.participants.listed[owner].cipher_key,
            (owner, attempt.index),
            attempt.digest,
        )
        if opened.commitments() != ShareCommitments(shares.self_commitment, shares.mask_commitment):
            raise MessageError("the shares are not those that were committed to")
        return opened

    def _change_of(self, participants: Participants, update: OutgoingUpdate) -> MaskedChange:
        plan, follower = self._run.plan, self._run.follower
        assert plan is not None
        assert follower is not None
        return masked_change(
            plan,
            self._run.specification(plan),
            update,
            follower.head,
            follower.inline_delta() if participants.based else None,
            participants.bounds,
            self._identity.start_directions,
        )

    def _mask(self, change: MaskedChange, attempt: _Try, keys: _Keys, owners: list[int]) -> bytes:
        plan = self._run.plan
        assert plan is not None
        assert plan.secure is not None
        listed, context = attempt.participants.listed, attempt.digest
        bits, length = modulus_bits(plan.secure.bits, len(listed)), len(change.integers)
        others = [(owner, listed[owner].mask_key) for owner in owners if owner != attempt.index]
        masked: Words = reduced(change.integers, bits)
        masked = masked + self_mask(keys.self_seed, context, length, bits)
        masked += pair_masks(
            attempt.index, private_key(keys.mask_seed, "mask key"), others, context, length, bits
        )
        return pack(masked & np.uint32((1 << bits) - 1), bits)

    def _confirm(self, message: Survivors) -> list[Message]:
        """Sign the list of survivors: the only one in this try."""
        attempt = self._try
        assert attempt is not None
        if attempt.masked is None:
            return []
        if attempt.survivors is not None and attempt.survivors != message.survivors:
            raise MessageError("a second list of survivors, in one try: nothing is shown for it")
        check_places(message.survivors, attempt.participants, attempt.index, "who survived")
        if not set(message.survivors) <= attempt.held.keys():
            raise MessageError("a survivor that made no shares")
        attempt.survivors = message.survivors
        return [Confirmation(attempt.digest, message.survivors)]

    def _reveal(self, message: Confirmations, round_number: int) -> list[Message]:
        """Give one share of each, once enough survivors have signed the same list as this site."""
        attempt, plan = self._try, self._run.plan
        assert attempt is not None
        assert plan is not None
        if attempt.survivors is None:
            return []
        if attempt.reveal is None:
            own = Confirmation(attempt.digest, attempt.survivors)
            confirmed = confirmed_by(
                message, own, attempt.participants, plan, self._identity.federation, self._key_of
            )
            if len(confirmed) < attempt.threshold:
                raise MessageError(
                    f"{len(confirmed)} survivors have signed this site's list of them, {attempt.threshold} "
                    "must have: nothing is shown"
                )
            self._state.note_unmasked(round_number)
            attempt.reveal = Reveal(
                attempt.digest,
                [
                    held.self_seed if owner in attempt.survivors else held.mask_seed
                    for owner, held in sorted(attempt.held.items())
                ],
            )
        return [attempt.reveal]
