"""The shared head alone as a heads file, for a clinic that classifies and never trained."""

from dataclasses import dataclass
from pathlib import Path

from fedmedclip.aggregator.configuration import AggregatorConfiguration, key_file_of
from fedmedclip.aggregator.store import Store
from fedmedclip.aggregator.stored_heads import head_at
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.heads_file import FORMAT, HeadsMetadata, write_heads_file
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.signature import load_signing_key
from fedmedclip.protocol.trust.pins import pin_where_possible


@dataclass(frozen=True)
class WrittenHead:
    """A shared head in a file of its own: its version of so many `rounds`, and the key that signed it, as 64
    hexadecimal digits.
    """

    file: Path
    version: int
    rounds: int
    signed_by: str

    def words(self) -> str:
        """Return a sentence for the coordinator."""
        trained = "" if self.version else ", which is not trained yet"
        return (
            f"{self.file}: the shared head of version {self.version} of {self.rounds}{trained}; no private "
            f"head; signed by {self.signed_by}, which a clinic trusts first: "
            f"fedmedclip trust {self.signed_by}"
        )


def write_shared_head(configuration_file: Path, output: Path, version: int | None) -> WrittenHead:
    """Write the shared head of a version, None for the newest, while the aggregator runs, or not.

    The aggregator's key signs it, and is trusted by this user from then on.

    Raises InvalidInputError when no run has begun, the version is not
    to be had, or the configuration names another bundle than the run's; HeadError when it cannot be written.
    """
    configuration = read_configuration(configuration_file, AggregatorConfiguration)
    settings = configuration.federation
    bundle = open_bundle(beside(configuration_file, settings.bundle))
    database = beside(configuration_file, settings.state) / "aggregator.db"
    if not database.is_file():
        raise InvalidInputError(f"{database} does not exist: this aggregator has not begun a run")
    store = Store(database)
    try:
        plan = store.plan()
        if plan is None:
            raise InvalidInputError(f"{database} holds no run: this aggregator has not begun one")
        if plan.bundle_digest != bundle.digest:
            raise InvalidInputError(
                f"the run is of bundle {plan.bundle_digest.hex()[:12]}, {bundle.folder} is bundle "
                f"{bundle.digest.hex()[:12]}; name the run's bundle in {configuration_file}"
            )
        names = bundle.manifest.class_names
        specification = shared_head_specification(plan.method, plan.embedding_size, len(names))
        chosen = store.newest_version().version if version is None else version
        head = head_at(store, specification, chosen)
    finally:
        store.close()
    metadata = HeadsMetadata(FORMAT, plan.method, settings.name, "", chosen, bundle.digest.hex(), names)
    key = load_signing_key(key_file_of(configuration_file, configuration))
    write_heads_file(output, metadata, head, None, key)
    pin_where_possible(key.public_key, f"aggregator of {settings.name}, {configuration_file.resolve()}")
    return WrittenHead(output, chosen, plan.rounds, key.public_key.hex())
