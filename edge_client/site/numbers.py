"""A site in numbers, for its page and for Prometheus: from its files, running or not, and its process."""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import msgspec
from safetensors import SafetensorError, safe_open

from fedmedclip.edge_client.images.split import SPLIT_FILE, read_split
from fedmedclip.edge_client.ledger.totals import RunningTotals, Totals
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.certificates import read_certificate_file
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.heads.heads_file import METADATA_KEY
from fedmedclip.protocol.link.session import Traffic
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.state_folder import is_claimed

Consent = Literal["approved", "asked", "refused", "automatic"]
CONSENT: tuple[Consent, ...] = get_args(Consent)


class SiteNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """Where a site stands. None is what is not known, and what has no limit.

    Of the process, and so only while it runs: `connected`, `joined`, `connections` to the broker since its
    start, `refused_messages`. Bytes are MQTT payload; without a ledger they are of this run, up to its newest
    version here. `active_version` is the version of the heads that answer. `images` by split leaves out those
    that are fewer than the policy's `smallest_count`. `accuracy` by head is the newest version's on the
    validation split, where that is not too small. `privacy_spent` of `privacy_epsilon` is of the newest run
    that asked for privacy. `certificate_ends` is in seconds since 1970.
    """

    federation: str
    site: str
    running: bool
    connected: bool | None = None
    joined: bool | None = None
    connections: int | None = None
    refused_messages: int | None = None
    run: int | None = None
    version: int | None = None
    rounds: int | None = None
    paused: bool | None = None
    active_version: int | None = None
    trained_round: int | None = None
    training_seconds: float | None = None
    accuracy: Mapping[str, float] = msgspec.field(default_factory=dict)
    sent_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes_today: int | None = None
    received_bytes_today: int | None = None
    bytes_per_day: int | None = None
    bytes_in_all: int | None = None
    rounds_in_all: int | None = None
    contributed_rounds: int | None = None
    ledger_entries: int | None = None
    images: Mapping[str, int] = msgspec.field(default_factory=dict)
    privacy_spent: float | None = None
    privacy_epsilon: float | None = None
    consent: Consent | None = None
    certificate_ends: float | None = None


class Process(Protocol):
    """What the agent of a site that runs knows of itself."""

    refused_messages: int

    @property
    def online(self) -> bool:
        """Whether the connection to the broker stands."""

    @property
    def joined(self) -> bool:
        """Whether the aggregator has admitted this site."""


def numbers_of_process(stored: SiteNumbers, agent: Process, traffic: Traffic) -> SiteNumbers:
    """Return the numbers of a site's files with those of its own process."""
    return msgspec.structs.replace(
        stored,
        running=True,
        connected=agent.online,
        joined=agent.online and agent.joined,
        connections=traffic.connections,
        refused_messages=agent.refused_messages,
    )


def stored_numbers(configuration_file: Path) -> SiteNumbers:
    """Return what the files of a site say. Raises InvalidInputError or StorageError for damaged ones."""
    configuration = read_configuration(configuration_file, SiteConfiguration)
    settings, policy = configuration.site, configuration.policy
    folder = beside(configuration_file, settings.state)
    numbers: dict[str, Any] = {
        "bytes_per_day": policy.bytes_per_day,
        "bytes_in_all": policy.bytes_in_all,
        "rounds_in_all": policy.rounds_in_all,
        "images": _images(folder / SPLIT_FILE, policy.smallest_count),
        "active_version": _version_in(folder / "heads.safetensors"),
        "certificate_ends": _end_of(configuration, configuration_file),
    }
    if policy.approve == "automatic":
        numbers["consent"] = "automatic"
    if (database := folder / "site.db").exists():
        state = SiteState(database)
        try:
            numbers |= _of_state(state)
        finally:
            state.close()
    if "validation" not in numbers["images"]:
        numbers.pop("accuracy", None)
    return SiteNumbers(
        federation=settings.federation, site=settings.name, running=is_claimed(folder), **numbers
    )


def _of_state(state: SiteState) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    if releases := state.releases.listing():
        # What all runs cost together takes an accountant some time: `fedmedclip site privacy` says it.
        newest_release = releases[-1].report
        numbers |= {"privacy_spent": newest_release.spent, "privacy_epsilon": newest_release.epsilon}
    if (mark := state.ledger_end.mark()) is not None:
        numbers |= _of_ledger(mark.number, RunningTotals(state.ledger_end.totals()).totals(time.time()))
    if (stored := state.load()) is None:
        return numbers
    journal = state.journal()
    newest = journal[max(journal)] if journal else {}
    in_journal = {
        "sent_bytes": sum(report.get("uplink_bytes", 0) for report in journal.values()),
        "received_bytes": sum(report.get("downlink_bytes", 0) for report in journal.values()),
    }
    return {
        **in_journal,
        **numbers,
        "run": stored.plan.number,
        "version": None if stored.version < 0 else stored.version,
        "rounds": stored.plan.rounds,
        "paused": stored.plan.paused,
        "trained_round": stored.trained_round,
        "training_seconds": newest.get("train_seconds") or None,
        "accuracy": newest.get("accuracy", {}),
    }


def _of_ledger(entries: int, totals: Totals) -> dict[str, Any]:
    return {
        "ledger_entries": entries,
        "sent_bytes": totals.sent.bytes,
        "received_bytes": totals.received.bytes,
        "sent_bytes_today": totals.sent_today.bytes,
        "received_bytes_today": totals.received_today.bytes,
    }


def _images(split_file: Path, smallest: int) -> dict[str, int]:
    if not split_file.exists():
        return {}
    counted = Counter(part for _, part in read_split(split_file).values())
    return {part: images for part, images in counted.items() if images >= smallest}


def _version_in(heads: Path) -> int | None:
    """Return the version that a heads file says it is of; None without a file, or with a damaged one."""
    try:
        with safe_open(heads, framework="numpy") as file:
            return int(msgspec.json.decode((file.metadata() or {})[METADATA_KEY])["version"])
    except (OSError, SafetensorError, KeyError, *MALFORMED):
        return None


def _end_of(configuration: SiteConfiguration, configuration_file: Path) -> float | None:
    if (file := configuration.broker.certificate_file) is None:
        return None
    try:
        return read_certificate_file(beside(configuration_file, file)).not_valid_after_utc.timestamp()
    except FedMedClipError:
        return None
