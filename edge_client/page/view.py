"""All that the page of a site shows, and nothing else: numbers, hashes, names of classes, sentences.

No part names a file, a patient or an image. A part that is None is not on the page: `edge_client.site` fills
in what its state and its ledger have.
"""

from typing import Literal

import msgspec

Tone = Literal["good", "waiting", "bad", "quiet"]
"""How a state is marked: as it should be, waits for somebody, needs somebody, rests."""


class Glance(msgspec.Struct, frozen=True):
    """Where the site stands: `doing` is a sentence, with `tone`; `answers` says who answers images here.

    `since` is when the connection began or was lost, in seconds since 1970. `version` is the newest one that
    is here, -1 before the first; without a plan `run` and `rounds` are 0.
    """

    connected: bool
    since: float
    joined: bool
    run: int
    version: int
    rounds: int
    tone: Tone
    doing: str
    answers: str = ""


class Sentence(msgspec.Struct, frozen=True):
    """What a sentence is about, and the sentence."""

    title: str
    words: str


class Decision(msgspec.Struct, frozen=True):
    """What `by` decided of the plan with hash `terms`, at `at` in seconds since 1970."""

    terms: str
    run: int
    rounds: int
    approved: bool
    by: str
    at: float
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """The newest plan that was heard, in words, and every decision, oldest first.

    `terms` is its hash, empty where none has come yet. `standing` says how it stands, `automatic` whether the
    policy approves all plans.
    """

    terms: str
    awaits_decision: bool
    approved: bool
    standing: str
    words: list[Sentence]
    decisions: list[Decision]
    automatic: bool


class Traffic(msgspec.Struct, frozen=True):
    """Messages and the bytes of their payloads."""

    messages: int = 0
    bytes: int = 0


class KindTraffic(msgspec.Struct, frozen=True):
    """Of one kind of message in one direction: today, and in all."""

    direction: str
    kind: str
    today: Traffic
    in_all: Traffic


class DayTraffic(msgspec.Struct, frozen=True):
    """What left on a day: how many days ago, and its bytes."""

    days_ago: int
    bytes: int


class Recorded(msgspec.Struct, frozen=True):
    """An entry of the ledger."""

    number: int
    at: float
    direction: str
    kind: str
    bytes: int
    sha256: str
    note: str


class Verification(msgspec.Struct, frozen=True):
    """What reading the whole ledger at `at` has shown; `faults` is empty where it is whole."""

    at: float
    entries: int
    faults: list[str]


class Ledger(msgspec.Struct, frozen=True):
    """What left this site and what came, as the ledger has it, beside the limits (None: no limit).

    `days` are the newest ones, oldest first; `newest` the last entries, newest first.
    """

    sent_today: Traffic
    sent: Traffic
    received_today: Traffic
    received: Traffic
    bytes_per_day: int | None
    bytes_in_all: int | None
    rounds: int | None
    rounds_in_all: int | None
    days: list[DayTraffic]
    kinds: list[KindTraffic]
    newest: list[Recorded]
    verified: Verification | None


class Privacy(msgspec.Struct, frozen=True):
    """What all runs together have spent of what the operator allows (None: no limit), at `delta`."""

    spent: float
    epsilon: float | None
    delta: float
    releases: int


class Version(msgspec.Struct, frozen=True):
    """A version of the heads that is kept here, and its figures on the validation split's `images`.

    `name` is what it is called: RUN:VERSION. `low` and `high` are an approximate 95 % interval about
    `balanced_accuracy`, that of what answers: of zero-shot, where `zero_shot_answers` in the heads' place.
    Figures that were not measured are None.
    """

    name: str
    run: int
    version: int
    made_at: float
    active: bool
    verdict: str
    reason: str
    by: str
    images: int
    balanced_accuracy: float | None
    low: float | None
    high: float | None
    zero_shot: float | None
    shared: float | None
    private: float | None
    calibration_error: float | None
    zero_shot_answers: bool


class Versions(msgspec.Struct, frozen=True):
    """What is kept, oldest first, and how a new version becomes the active one (the policy's `activate`)."""

    kept: list[Version]
    activate: str


class Event(msgspec.Struct, frozen=True):
    """What happened at `at`, in seconds since 1970: a kind, and a sentence."""

    at: float
    kind: str
    words: str


class History(msgspec.Struct, frozen=True):
    """What happened here, oldest first, and the times at which the site was connected, up to `until`."""

    since: float
    until: float
    connected: list[tuple[float, float]]
    events: list[Event]


class ClassCount(msgspec.Struct, frozen=True):
    """One class: images, different ones among them, groups, and images of each part of the split."""

    name: str
    images: int
    different: int
    groups: int
    train: int
    validation: int
    test: int


class Skipped(msgspec.Struct, frozen=True):
    """How many files cannot be used, for one reason."""

    reason: str
    files: int


class Data(msgspec.Struct, frozen=True):
    """How good the site's images are, counted. `report` is where the report with thumbnails lies.

    `copies`, `near_copies` and `look_alikes` count pairs; `contradictory` those of them under two labels.
    `tests` is how many images the test part has, `tests_with_mate` how many of these have a look-alike or
    another image of their patient in training; None before a split was recorded.
    """

    images: int
    different: int
    classes: list[ClassCount]
    skipped: list[Skipped]
    ignored_files: int
    groups: int
    largest_group: int
    copies: int
    near_copies: int
    look_alikes: int
    contradictory: int
    tests: int | None
    tests_with_mate: int | None
    remarks: int
    report: str


class SiteView(msgspec.Struct, frozen=True):
    """The whole page of one site."""

    federation: str
    site: str
    software: str
    glance: Glance | None = None
    plan: Plan | None = None
    ledger: Ledger | None = None
    privacy: Privacy | None = None
    versions: Versions | None = None
    history: History | None = None
    data: Data | None = None
