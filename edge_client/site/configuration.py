"""What `site.toml` holds; `fedmedclip init site` writes an example of every setting."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fedmedclip.edge_client.features.providers import PROCESSOR_ALONE, ProviderNames, parse_provider
from fedmedclip.edge_client.heads.assurance import AssuranceSettings
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, LEAST_TO_TRAIN, Floors
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.protocol.codecs import require_delta_codec
from fedmedclip.protocol.configuration.annotations import (
    BundleFolder,
    File,
    FileOrFolder,
    NewFile,
    NewFolder,
    PublicKeyInHexadecimal,
)
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.pages.settings import PageSettings
from fedmedclip.protocol.privacy import PrivacySettings
from fedmedclip.protocol.topics import check_name

Share = Annotated[float, Meta(ge=0, lt=1)]


class SiteSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[site]`. Paths are relative to the configuration file.

    `data` is a folder with one sub-folder per class, a CSV of path,label, or an `.npz` archive.
    `aggregator_key` is the aggregator's public key in hexadecimal; without it, the first aggregator heard is
    trusted and remembered. `roster` is where the federation's roster is kept, which says who is a member and
    when the aggregator's key changes. `ensemble` says how the heads vote: as the method has it, per image by
    entropy, or by one weight fitted on the validation split. `uplink_codec` replaces the federation's for
    what this site sends, say a budget for its own thin link. `feature_store` may be shared by several
    federations; by default it lies in the state folder. `insecure` takes a bundle that nobody signed. Raises
    InvalidInputError for an unknown codec, for names that cannot stand in a topic, for `insecure` beside
    `aggregator_key`, and for a roster without it.
    """

    federation: Annotated[str, Meta(description="the federation's name")]
    name: Annotated[str, Meta(description="this site's name, its own in the federation")]
    bundle: BundleFolder
    data: Annotated[FileOrFolder, Meta(description="the images")]
    state: NewFolder = "site-state"
    feature_store: NewFile | None = None
    ensemble: Literal["method", "entropy", "calibrated"] = "method"
    uplink_codec: str | None = None
    aggregator_key: PublicKeyInHexadecimal | None = None
    roster: NewFile | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        check_name("federation", self.federation)
        check_name("site", self.name)
        if self.uplink_codec is not None:
            require_delta_codec(self.uplink_codec, "uplink_codec")
        if self.roster is not None and self.aggregator_key is None:
            raise InvalidInputError("roster is set, which needs aggregator_key: whose roster is it?")
        if self.insecure and self.aggregator_key is not None:
            raise InvalidInputError(
                "insecure takes a bundle that nobody signed, and aggregator_key says who has to; leave one "
                "of them out"
            )


class SplitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[split]`: shares of the images for validation and test, the seed of the draw, and what names
    the groups of images that stay in one part.

    `group_column` is a column of the CSV file that `data` is, by default `group` if it has one; `groups` a
    CSV of file,group, by default `groups.csv` beside the images if there is one. Raises InvalidInputError
    when nothing would be left to train on.
    """

    validation: Share = 0.1
    test: Share = 0.2
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    group_column: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    groups: File | None = None

    def __post_init__(self) -> None:
        if self.validation + self.test >= 1:
            raise InvalidInputError(
                f"validation {self.validation} and test {self.test} leave nothing to train on"
            )


class ImageSettings(ReaderSettings, frozen=True, forbid_unknown_fields=True):
    """The table `[images]`: how image files are read. With `strict` the site stops at files it cannot use."""

    strict: bool = False


class ResourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[resources]`: what this box gives to the work.

    `providers` are ONNX Runtime's execution providers, wanted in this order: see
    `edge_client.features.providers`. Raises InvalidInputError for what is none.
    """

    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    feature_batch: Annotated[int, Meta(ge=1, le=1024)] = 16
    providers: ProviderNames = PROCESSOR_ALONE

    def __post_init__(self) -> None:
        for name in self.providers:
            parse_provider(name)


class SitePrivacy(PrivacySettings, frozen=True, forbid_unknown_fields=True):
    """The table `[privacy]`: what this hospital's operator demands beside the plan; the stricter counts.

    `epsilon` bounds here what all runs together cost. `least_images_per_class` and `least_images` are floors
    for what is sent without it: see `edge_client.learning.floors`.
    """

    least_images_per_class: Annotated[int, Meta(ge=1, le=1_000_000)] = DEFAULT_FLOORS.least_images_per_class
    least_images: Annotated[int, Meta(ge=LEAST_TO_TRAIN, le=1_000_000)] = DEFAULT_FLOORS.least_images

    @property
    def floors(self) -> Floors:
        """The floors of what is sent without differential privacy."""
        return Floors(self.least_images_per_class, self.least_images)


class AnswerSettings(AssuranceSettings, frozen=True, forbid_unknown_fields=True):
    """The table `[answers]`: how the heads file says how far its answers are to be relied on."""


class SitePageSettings(PageSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[page]`: a page for this site's operator, by default on a port beside an aggregator's."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 8781


class SiteConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    site: SiteSettings
    split: SplitSettings = SplitSettings()
    images: ImageSettings = ImageSettings()
    policy: PolicySettings = PolicySettings()
    privacy: SitePrivacy = SitePrivacy()
    answers: AnswerSettings = AnswerSettings()
    resources: ResourceSettings = ResourceSettings()
    broker: LinkSettings = LinkSettings()
    page: SitePageSettings | None = None
