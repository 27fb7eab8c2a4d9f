"""Every message that travels, as bounded structures. Each is a MessagePack array whose first item is its tag.

A message is decoded straight into one of these: an unknown tag, a missing field, a wrong type or a value out
of bounds is a MessageError before anything else looks at it.
"""

import hashlib
import math
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.participation import LOTS

Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Fingerprint = Annotated[bytes, Meta(min_length=8, max_length=8)]
Identity = Annotated[bytes, Meta(min_length=16, max_length=16)]
Version = Annotated[int, Meta(ge=0, le=1_000_000)]
HeldVersion = Annotated[int, Meta(ge=-1, le=1_000_000)]
RunNumber = Annotated[int, Meta(ge=1, le=(1 << 37) - 1)]
Samples = Annotated[int, Meta(ge=1, le=1_000_000_000)]
DrawnBelow = Annotated[int, Meta(ge=0, le=LOTS - 1)]
ShortText = Annotated[str, Meta(max_length=64)]
Reason = Annotated[str, Meta(max_length=400)]
Mark = Annotated[bytes, Meta(min_length=8, max_length=8)]
Setting = Annotated[str, Meta(max_length=64)] | int | float | bool

Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Commitment = Annotated[bytes, Meta(min_length=16, max_length=16)]
Share = Annotated[bytes, Meta(min_length=17, max_length=17)]
MAXIMUM_PARTICIPANTS = 1000
Index = Annotated[int, Meta(ge=0, le=MAXIMUM_PARTICIPANTS - 1)]

MAXIMUM_OBJECT_BYTES = 1 << 28
MAXIMUM_SETTINGS = 64
MAXIMUM_BLOCKS = 1 << 14
MAXIMUM_REQUESTED_BLOCKS = 1024


LATEST_SESSION = (1 << 37) - 1
LAST_WORD = (1 << 32) - 1
"""The sequence of a last will: nothing that is said on its connection comes after it."""

Count = Annotated[int, Meta(ge=0, le=LAST_WORD)]

MOST_METRICS_BYTES = 200
"""What a Metrics message takes at most, with frame and signature."""
STEPS_OF_A_SHARE = 200
"""In how many steps Metrics tell a share: each is half a per cent."""
STEPS_OF_LOG_LOSS = 100
"""In how many steps Metrics tell a log loss of 1."""
MOST_LOG_LOSS = 2000
MOST_METRICS_OF_A_VERSION = 1000
LONGEST_SOFTWARE = 32
VERDICTS = ("not judged", "activated", "set aside", "waits for the operator")
"""What became of a version at a site, by the number that travels; greater numbers are kept for later."""

TwoHundredths = Annotated[int, Meta(ge=0, le=STEPS_OF_A_SHARE)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class ObjectReference(_Message, frozen=True):
    """Bytes named by their SHA-256, which travel as numbered blocks.

    `size` and `block_size` are in bytes; block i holds bytes [i * block_size, (i + 1) * block_size).
    """

    digest: Digest
    size: Annotated[int, Meta(ge=1, le=MAXIMUM_OBJECT_BYTES)]
    block_size: Annotated[int, Meta(ge=1024, le=MAXIMUM_OBJECT_BYTES)]


class Moment(_Message, frozen=True):
    """When a site said something, by its own count: see `protocol.moments`."""

    session: RunNumber
    connection: Count
    sequence: Count


class PrivacyTerms(_Message, frozen=True):
    """What every member's part of a run keeps to: see docs/explanation/privacy.md.

    All that a site sends in the run is (`epsilon`, `delta`) private together, against adding or removing one
    image of its training split, or with `unit` "patient" all images of one patient, of whom at most
    `images_per_patient` count. The budget lasts for `releases` updates. Statistics of classes leave out those
    with a noisy count below `minimum_group_size`; gradients are clipped to the norm `clip_norm`, and each
    step takes in each image or patient with probability `sampling_rate`.
    """

    epsilon: Annotated[float, Meta(gt=0)]
    delta: Annotated[float, Meta(gt=0, lt=1)]
    unit: Literal["image", "patient"]
    images_per_patient: Annotated[int, Meta(ge=1, le=1_000_000)]
    minimum_group_size: Annotated[int, Meta(ge=0, le=1_000_000)]
    clip_norm: Annotated[float, Meta(gt=0)]
    sampling_rate: Annotated[float, Meta(gt=0, le=1)]
    releases: Annotated[int, Meta(ge=1, le=1_000_000)]

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.epsilon, self.clip_norm)):
            raise ValueError("epsilon and clip_norm are finite numbers")


class PrivacySpent(_Message, frozen=True):
    """What a site's privacy has cost: an update by itself, and all of the run's with it, at `delta`.

    `epsilon` is what the site spends in the run at most.
    """

    cost: Annotated[float, Meta(ge=0)]
    spent: Annotated[float, Meta(ge=0)]
    epsilon: Annotated[float, Meta(gt=0)]
    delta: Annotated[float, Meta(gt=0, lt=1)]

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.cost, self.spent, self.epsilon)):
            raise ValueError("what privacy has cost are finite numbers")


# An encoded head: itself where it fits the message, otherwise a reference to its blocks.
Payload = bytes | ObjectReference


class Secure(_Message, frozen=True):
    """That updates are summed under masks, and what is summed: see `protocol.secure_aggregation`.

    `codec` names the linear codec, `bits` how many a site's integer has with its sign. A site's images count
    up to `most_samples`. No value of a change is beyond `bound` in the first round. A site takes part with at
    least `least` sites, itself included.
    """

    codec: ShortText
    bits: Annotated[int, Meta(ge=4, le=22)]
    most_samples: Samples
    bound: Annotated[float, Meta(gt=0, le=1e6)]
    least: Annotated[int, Meta(ge=3, le=MAXIMUM_PARTICIPANTS)]


class Plan(_Message, frozen=True, tag=1):
    """What a run of the federation does.

    Fixed under one `identity`: all but `revision`, `rounds`, `paused` and `maximum_update_norm`. A run that
    is begun later has a greater `number`, and what the coordinator changes in a run a greater `revision`:
    whoever holds one plan takes no earlier one. Version 0 of the head is drawn from `seed`, or with `start`
    it is the head of that digest, which the aggregator hands out as a Snapshot. `privacy` is what every
    update has to keep to, None where nothing is asked. With `secure` the aggregator sees sums of updates
    only.
    """

    identity: Identity
    aggregator_key: PublicKey
    method: ShortText
    bundle_digest: Digest
    embedding_size: Annotated[int, Meta(ge=1, le=1 << 16)]
    rounds: Annotated[int, Meta(ge=1, le=1_000_000)]
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    uplink_codec: ShortText
    downlink_codec: ShortText
    training: Annotated[dict[ShortText, Setting], Meta(max_length=MAXIMUM_SETTINGS)]
    number: RunNumber
    revision: RunNumber
    paused: bool
    maximum_update_norm: Annotated[float, Meta(gt=0)]
    start: Digest | None
    privacy: PrivacyTerms | None = None
    secure: Secure | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in self.training.values() if isinstance(value, float)):
            raise ValueError("the settings of training are finite numbers")

    @property
    def begun(self) -> str:
        """When the run was begun, for people: the number is the seconds since 1970 then, or more."""
        return datetime.fromtimestamp(self.number, UTC).strftime("%Y-%m-%d %H:%M:%SZ")

    @property
    def order(self) -> tuple[int, int]:
        """What tells an earlier plan from a later one."""
        return self.number, self.revision


REVISABLE = frozenset({"revision", "rounds", "paused", "maximum_update_norm"})
"""The fields of a Plan that change within a run."""


class Announcement(_Message, frozen=True, tag=2):
    """A version of the global head. `payload` is the encoded difference to the version before.

    Version 0 carries no payload: it is derived from the plan's seed. Sites whose lot for the next round is
    below `drawn_below` train it, None: all.
    """

    version: Version
    head_digest: Digest
    finished: bool
    payload: Payload | None
    drawn_below: DrawnBelow | None


class Join(_Message, frozen=True, tag=3):
    """A site asks to take part. `public_key` is the key that signs all of its messages.

    `version` is the newest of this run that it holds (-1: none), `software` its own version. With a reason in
    `cannot` it says instead that it cannot take part in this run, and is not waited for; `samples` is 1 then.
    `revision` is that of the plan that it knows: where it is not the newest, the plan is published again.
    """

    public_key: PublicKey
    bundle_digest: Digest
    samples: Samples
    version: HeldVersion
    software: ShortText
    cannot: Reason
    moment: Moment
    revision: RunNumber


class JoinAnswer(_Message, frozen=True, tag=4):
    """Whether the site with this key takes part, and if not, why. `moment` is that of the Join it answers.

    `latest` is given where that Join is an old one: what the site with this key said last. `revision` is that
    of the newest plan: a site that knows an earlier one trains nothing.
    """

    fingerprint: Fingerprint
    accepted: bool
    reason: Reason
    moment: Moment
    latest: Moment | None
    revision: RunNumber


class Update(_Message, frozen=True, tag=5):
    """One site's encoded delta, trained from version `round_number` - 1 on `samples` images.

    `attempt` counts how often the site has trained this round before: once more after each refusal. `privacy`
    is what it costs where it is private; then `samples` is a noisy number.
    """

    round_number: Annotated[int, Meta(ge=1, le=1_000_000)]
    samples: Samples
    payload: Payload
    attempt: Count
    privacy: PrivacySpent | None = None

    @property
    def mark(self) -> bytes:
        """What tells it from every other update of its site in this run: 8 bytes."""
        return hashlib.sha256(encode_message(self)).digest()[:8]


class Receipt(_Message, frozen=True, tag=6):
    """The update of this round is stored durably and counts (accepted), or it does not (with the reason).

    `mark` is the update's. With `closed` the round is over, or was made without it; otherwise the site may
    train it again and send another.
    """

    round_number: Annotated[int, Meta(ge=1, le=1_000_000)]
    accepted: bool
    reason: Reason
    closed: bool
    mark: Mark


class Block(_Message, frozen=True, tag=7):
    """Block `index` of the object with this digest."""

    object_digest: Digest
    index: Annotated[int, Meta(ge=0, le=MAXIMUM_BLOCKS - 1)]
    data: bytes


class BlockRequest(_Message, frozen=True, tag=8):
    """The receiver of an object asks for blocks that it has not got, the first of them when they are many."""

    object_digest: Digest
    missing: Annotated[
        list[Annotated[int, Meta(ge=0, le=MAXIMUM_BLOCKS - 1)]],
        Meta(min_length=1, max_length=MAXIMUM_REQUESTED_BLOCKS),
    ]


class HeadRequest(_Message, frozen=True, tag=9):
    """A site asks for what leads from `have_version` to the newest version; -1 when it needs a whole head."""

    have_version: HeldVersion


class Snapshot(_Message, frozen=True, tag=10):
    """A whole head, encoded without loss, for a site that is far behind or differs."""

    version: Version
    head_digest: Digest
    finished: bool
    payload: Payload
    drawn_below: DrawnBelow | None


class Status(_Message, frozen=True, tag=11):
    """Whether a site is connected, and the newest version that it holds (-1: none).

    A last will has the last moment of its connection, so it says nothing once the site has connected again.
    """

    fingerprint: Fingerprint
    online: bool
    version: HeldVersion
    moment: Moment


class StateRequest(_Message, frozen=True, tag=12):
    """The aggregator, whose newest version is `version`, asks a site that holds a newer one to prove it."""

    version: HeldVersion


class State(_Message, frozen=True, tag=13):
    """What a site holds of the run, as an object: see `protocol.heads.evidence`."""

    payload: Payload


class Abstain(_Message, frozen=True, tag=14):
    """A member will send no update for this round, and why; the round does not wait for it."""

    round_number: Annotated[int, Meta(ge=1, le=1_000_000)]
    reason: Reason


class RosterNotice(_Message, frozen=True, tag=15):
    """How many records the roster has, and its bytes: see `protocol.roster.chain`."""

    records: Annotated[int, Meta(ge=1, le=100_000)]
    payload: Payload


class RenewalRequest(_Message, frozen=True, tag=16):
    """A member asks for a new TLS certificate: PKCS #10 (RFC 2986) in DER, signed by its new key."""

    certificate_request: Annotated[bytes, Meta(min_length=1, max_length=2048)]


class Renewal(_Message, frozen=True, tag=17):
    """The new certificate of a member in DER, for the key of its newest request."""

    certificate: Annotated[bytes, Meta(min_length=1, max_length=4096)]


class MaskKeys(_Message, frozen=True, tag=18):
    """A site has a trained update for this round, and keys for one try to sum it: X25519, made for it alone.

    With `spent` it has shown its shares in this round already, and takes no part in another try.
    """

    round_number: Annotated[int, Meta(ge=1, le=1_000_000)]
    cipher_key: PublicKey
    mask_key: PublicKey
    spent: bool

    @property
    def mark(self) -> bytes:
        """What tells it from all others: 8 bytes, which its Receipt has."""
        return hashlib.sha256(encode_message(self)).digest()[:8]


class Listed(_Message, frozen=True):
    """A participant of a try: its MaskKeys (not `spent`) with their signature, for its peers to verify.

    `public_key` is the key of the site, None where the roster says it.
    """

    site: ShortText
    public_key: PublicKey | None
    cipher_key: PublicKey
    mask_key: PublicKey
    signature: Signature


class Participants(_Message, frozen=True, tag=19):
    """Who takes part in a try, sorted by name; each is meant by its place in this list from here on.

    `bounds` are those of the values of each array; with `based` the basis is that of the newest version's
    difference, without it is drawn. The SHA-256 of this message names the try.
    """

    round_number: Annotated[int, Meta(ge=1, le=1_000_000)]
    bounds: Annotated[list[Annotated[float, Meta(gt=0, le=1e9)]], Meta(max_length=1 << 10)]
    based: bool
    listed: Annotated[list[Listed], Meta(min_length=1, max_length=MAXIMUM_PARTICIPANTS)]

    @property
    def digest(self) -> bytes:
        """What names the try: 32 bytes."""
        return hashlib.sha256(encode_message(self)).digest()


class SealedShares(_Message, frozen=True):
    """Two shares for one peer, sealed for it, and the commitments to them."""

    sealed: Annotated[bytes, Meta(min_length=50, max_length=50)]
    self_commitment: Commitment
    mask_commitment: Commitment


class MaskShares(_Message, frozen=True, tag=20):
    """A participant's shares for each participant in turn, itself included, and what its seed hashes to."""

    try_digest: Digest
    seed_commitment: Commitment
    shares: Annotated[list[SealedShares], Meta(min_length=1, max_length=MAXIMUM_PARTICIPANTS)]


class RoutedShares(_Message, frozen=True, tag=21):
    """The shares for one participant from all who made some, by their places: with these its peers mask."""

    try_digest: Digest
    shares: Annotated[list[tuple[Index, SealedShares]], Meta(max_length=MAXIMUM_PARTICIPANTS)]


class MaskedUpdate(_Message, frozen=True, tag=22):
    """A participant's integers under its masks, packed."""

    try_digest: Digest
    payload: Payload


class Survivors(_Message, frozen=True, tag=23):
    """The places of those whose masked updates came, in order: their sum is to be unmasked."""

    try_digest: Digest
    survivors: Annotated[list[Index], Meta(min_length=1, max_length=MAXIMUM_PARTICIPANTS)]


class Confirmation(_Message, frozen=True, tag=24):
    """A survivor signs the one list of survivors that it answers in this round."""

    try_digest: Digest
    survivors: Annotated[list[Index], Meta(min_length=1, max_length=MAXIMUM_PARTICIPANTS)]


class Confirmations(_Message, frozen=True, tag=25):
    """The signatures of survivors, by their places, under the same list."""

    try_digest: Digest
    signatures: Annotated[list[tuple[Index, Signature]], Meta(max_length=MAXIMUM_PARTICIPANTS)]


class Reveal(_Message, frozen=True, tag=26):
    """What a survivor gives of each who made shares, in order: of a survivor the share of its self-mask seed,
    of the others that of their mask key.
    """

    try_digest: Digest
    shares: Annotated[list[Share], Meta(max_length=MAXIMUM_PARTICIPANTS)]


class Complaint(_Message, frozen=True, tag=27):
    """A participant cannot use what another made for it."""

    try_digest: Digest
    about: Index
    reason: Reason


class Anew(_Message, frozen=True, tag=28):
    """A try is over without a sum, and why: its participants make new keys."""

    try_digest: Digest
    reason: Reason


class Figures(_Message, frozen=True):
    """How good a classifier is on a site's validation split, so coarse that no image stands out.

    Accuracy, balanced accuracy and expected calibration error are in steps of 1/200, the mean negative log
    likelihood of the true class in steps of 1/100 (natural logarithm).
    """

    accuracy: TwoHundredths
    balanced_accuracy: TwoHundredths
    calibration_error: TwoHundredths
    log_loss: Annotated[int, Meta(ge=0, le=MOST_LOG_LOSS)]


class Metrics(_Message, frozen=True, tag=29):
    """How good a version is at a site, and what became of it there, as far as the site shares it.

    `number` counts what the site has said of this version before: the greatest is what holds. `active` is the
    version of this run that answers there, None where none of it does. `verdict` is one of `VERDICTS`.
    Numbers of images, by split, are None where they are few or not to be known; so are figures of
    classifiers that are not there, and all of them where the validation split has few images.
    """

    version: Version
    number: Annotated[int, Meta(ge=0, le=MOST_METRICS_OF_A_VERSION)]
    active: Version | None
    verdict: Annotated[int, Meta(ge=0, le=15)]
    train_images: Samples | None
    validation_images: Samples | None
    test_images: Samples | None
    zero_shot: Figures | None
    shared: Figures | None
    private: Figures | None
    ensemble: Figures | None
    software: Annotated[str, Meta(max_length=LONGEST_SOFTWARE)]

    def __post_init__(self) -> None:
        if not (self.software.isascii() and self.software.isprintable()):
            raise ValueError("software is printable ASCII")


Message = (
    Abstain
    | Anew
    | Complaint
    | Confirmation
    | Confirmations
    | MaskKeys
    | MaskShares
    | MaskedUpdate
    | Metrics
    | Participants
    | Reveal
    | RoutedShares
    | Survivors
    | Plan
    | Announcement
    | Join
    | JoinAnswer
    | Update
    | Receipt
    | Renewal
    | RenewalRequest
    | RosterNotice
    | Block
    | BlockRequest
    | HeadRequest
    | Snapshot
    | State
    | StateRequest
    | Status
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_message(message: Message) -> bytes:
    """Return the MessagePack bytes of a message."""
    return _encoder.encode(message)


def decode_message(body: bytes) -> Message:
    """Return the message in `body`; raise MessageError when it is not exactly one known, bounded message."""
    try:
        message = _decoder.decode(body)
    except MALFORMED as error:
        raise MessageError(f"malformed message: {error}") from error
    # What is stored may be older and shorter; what travels has every item.
    if (wanted := 1 + len(message.__struct_fields__)) != (items := _items(body)):
        raise MessageError(f"malformed message: {items} items in a {type(message).__name__} of {wanted}")
    return message


def _items(body: bytes) -> int:
    """Return how many items a MessagePack array has, by its head."""
    longer = {0xDC: 2, 0xDD: 4}.get(body[0], 0)
    return int.from_bytes(body[1 : 1 + longer], "big") if longer else body[0] & 0x0F


def plan_of_version_1(encoded: bytes) -> Plan:
    """Return the plan that a state of protocol version 1 holds, with what it meant by what it did not say."""
    _, *fields = msgspec.msgpack.decode(encoded)
    return msgspec.convert([1, *fields, 1, 1, False, 1000.0, None], Plan)
