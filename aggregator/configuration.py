"""What `aggregator.toml` holds; `fedmedclip init aggregator` writes an example of every setting."""

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fedmedclip.aggregator.metrics_table import KEPT_VERSIONS
from fedmedclip.aggregator.round_events import MAXIMUM_STALENESS
from fedmedclip.protocol.codecs import require_delta_codec
from fedmedclip.protocol.codecs.error_feedback import require_carrying_codec
from fedmedclip.protocol.configuration import beside
from fedmedclip.protocol.configuration.annotations import (
    BundleFolder,
    File,
    NewFile,
    NewFolder,
    PublicKeyInHexadecimal,
)
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.messages import MAXIMUM_PARTICIPANTS, MAXIMUM_SETTINGS, Samples, Setting, ShortText
from fedmedclip.protocol.pages.settings import PageSettings
from fedmedclip.protocol.privacy import PrivacySettings
from fedmedclip.protocol.secure_aggregation.projection import linear_codec_named
from fedmedclip.protocol.topics import check_name


class FederationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[federation]`. Paths are relative to the configuration file.

    `maximum_update_norm` is the largest Euclidean norm of an update that is counted. A site that says nothing
    for `lease_seconds` is not waited for. The changes of past rounds are kept as far as they fit into
    `keep_megabytes`: sites that were away catch up by them, and versions can be rolled back to. `rule` names
    the aggregation rule, by default the one that suits the method; `weighting` gives it its weights, of which
    no site has more than `maximum_share` where three or more deliver. Codecs, too, are by default those that
    suit the method. Above `maximum_sites` members none is
    admitted: with open enrolment anybody can invent names.

    `sites_per_round` members are drawn for each round, all when it is not given. With `buffer_size` a round
    closes as soon as it has so many updates. Updates that are up to `maximum_staleness` rounds late count,
    discounted. With `stop_when_flat` the run ends once so many versions running are not better than the best
    before them by `flat_below`, in balanced accuracy as sites share it. With `broker_access` the aggregator
    keeps the access rules of Mosquitto's plugin for dynamic security equal to the members.

    `key` is the file of the aggregator's key, by default one in the state folder. With `roster`, in a
    federation's folder (`fedmedclip federation init`), that says who is a member; with
    `authority_passphrase_file` certificates are renewed without a person. Raises InvalidInputError for a name
    that cannot stand in a topic, for an unknown codec, for fewer sites or updates than `minimum_sites`, and
    for a roster without the key that signs it.
    """

    name: Annotated[str, Meta(description="the federation's name, which its sites give too")]
    bundle: BundleFolder
    rounds: Annotated[int, Meta(ge=1, le=1_000_000)]
    method: str = "fedmedclip"
    minimum_sites: Annotated[int, Meta(ge=1, le=100_000)] = 2
    round_timeout_seconds: Annotated[float, Meta(gt=0)] = 3600.0
    lease_seconds: Annotated[float, Meta(ge=10, le=86_400)] = 180.0
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    sites_per_round: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    buffer_size: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    maximum_staleness: Annotated[int, Meta(ge=0, le=MAXIMUM_STALENESS)] = 0
    weighting: Literal["samples", "equal"] = "samples"
    maximum_share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    rule: str | None = None
    enrolment: Literal["open", "listed"] = "open"
    maximum_sites: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    uplink_codec: ShortText | None = None
    downlink_codec: ShortText | None = None
    maximum_update_norm: Annotated[float, Meta(gt=0)] = 1000.0
    state: NewFolder = "aggregator-state"
    keep_megabytes: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    stop_when_flat: Annotated[int, Meta(ge=1, le=KEPT_VERSIONS // 2)] | None = None
    flat_below: Annotated[float, Meta(ge=0, lt=1)] = 0.002
    broker_access: bool = False
    key: NewFile | None = None
    roster: File | None = None
    authority_passphrase_file: File | None = None

    def __post_init__(self) -> None:
        check_name("federation", self.name)
        if self.uplink_codec is not None:
            require_delta_codec(self.uplink_codec, "uplink_codec")
        if self.downlink_codec is not None:
            require_delta_codec(self.downlink_codec, "downlink_codec")
            require_carrying_codec(self.method, self.downlink_codec)
        if self.roster is not None and self.key is None:
            raise InvalidInputError('roster needs the key that signs it: key = "coordinator.key"')
        for name in ("sites_per_round", "buffer_size"):
            if (value := getattr(self, name)) is not None and value < self.minimum_sites:
                raise InvalidInputError(
                    f"{name} is {value}, less than minimum_sites, {self.minimum_sites}: no round could close"
                )


class SecureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[secure_aggregation]`: where it stands, the aggregator sees sums of updates only.

    `codec` is linear: `dense`, or `subspace:rank=3,directions=8`; a value takes `bits` bits (12 suit a method
    that sends statistics, in three rounds), and those that let the sum of all sites fit. A site's images
    count up to `most_samples`. `bound` is the largest value of a change in the first round (by default 1 of a
    method that sends statistics, else 1/64); later ones follow from the sums. A sum is of at least
    `least_sites` sites; each of its phases takes at most `phase_seconds`.

    Raises InvalidInputError for an unknown codec.
    """

    codec: ShortText = "subspace"
    bits: Annotated[int, Meta(ge=4, le=22)] = 8
    most_samples: Samples = 1000
    bound: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    least_sites: Annotated[int, Meta(ge=3, le=MAXIMUM_PARTICIPANTS)] = 3
    phase_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 120.0

    def __post_init__(self) -> None:
        linear_codec_named(self.codec)


class AggregatorConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    `sites` maps a site's name to its public key in hexadecimal; with `enrolment = "listed"` nobody else may
    join. `training` goes into the plan: the settings of the method, the same for every site; `privacy` too,
    where it has an epsilon. Raises InvalidInputError for a site's name that cannot stand in a topic.
    """

    federation: FederationSettings
    sites: dict[str, PublicKeyInHexadecimal] = {}
    training: Annotated[dict[ShortText, Setting], Meta(max_length=MAXIMUM_SETTINGS)] = {}
    privacy: PrivacySettings = PrivacySettings()
    broker: LinkSettings = LinkSettings()
    secure_aggregation: SecureSettings | None = None
    page: PageSettings | None = None

    def __post_init__(self) -> None:
        if self.secure_aggregation is not None:
            _require_sums(self.federation, self.secure_aggregation)
        for name, value in self.training.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidInputError(f"[training] {name} is {value}; give a finite number")
        for site in self.sites:
            check_name("site", site)


def _require_sums(federation: FederationSettings, secure: SecureSettings) -> None:
    """Raise InvalidInputError for what cannot be done with a sum alone."""
    rule = federation.rule
    if rule is not None and rule.partition(":")[0] != "weighted_mean":
        raise InvalidInputError(
            f"rule {rule!r} looks at single updates, which [secure_aggregation] hides; leave `rule` out, or "
            "leave [secure_aggregation] out"
        )
    for name, none in (("buffer_size", None), ("maximum_staleness", 0)):
        if getattr(federation, name) != none:
            raise InvalidInputError(
                f"{name} is for late updates, which a sum of [secure_aggregation] cannot have; leave it out"
            )
    if federation.minimum_sites < secure.least_sites:
        raise InvalidInputError(
            f"minimum_sites is {federation.minimum_sites}, [secure_aggregation] sums at least "
            f"{secure.least_sites}; give minimum_sites = {secure.least_sites}"
        )


def key_file_of(configuration_file: Path, configuration: AggregatorConfiguration) -> Path:
    """Return where the aggregator's signing key lies."""
    settings = configuration.federation
    if settings.key is not None:
        return beside(configuration_file, settings.key)
    return beside(configuration_file, settings.state) / "aggregator.key"
