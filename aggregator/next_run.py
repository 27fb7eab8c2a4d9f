"""The next run while the aggregator runs: begun in the store, and then served as after a start.

configuration on disk + what the command changes of it -> checked -> the run before is put away, the next
begins in its place, in one transaction -> the service serves what the store holds
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from fedmedclip.aggregator.commands import NextRun
from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.federation import begin_or_resume, wanted_plan
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.bundle.signature import signer
from fedmedclip.protocol.configuration import beside, read_configuration, require_paths
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.settings import check_secrets
from fedmedclip.protocol.messages import Plan

# What the process holds from its start on.
_OF_THE_PROCESS = ("name", "state", "key", "roster")
# What tells a run from another one that is asked for alike.
_OF_EACH_RUN = frozenset({"identity", "number", "revision", "start", "paused"})


@dataclass(frozen=True)
class Successor:
    """Begins the next run of a federation. `served` is the configuration that the process runs with."""

    configuration_file: Path
    served: AggregatorConfiguration
    store: Store

    def begin(self, asked: NextRun, public_key: bytes) -> str:
        """Begin the run in the store, and return a sentence for the operator.

        Raises FedMedClipError for a configuration, bundle or start that cannot be used; then nothing changes.
        """
        with self.store.batch():
            configuration = self._configuration(asked)
            bundle = open_bundle(beside(self.configuration_file, configuration.federation.bundle))
            known = self.store.plan()
            assert known is not None
            wanted = wanted_plan(configuration, bundle, public_key, known)
            if self._has_begun(known, wanted):
                return (
                    f"the run of {known.begun} is as asked and has made no version yet: nothing else is begun"
                )
            carried: list[str] = []
            plan, _ = begin_or_resume(
                configuration,
                bundle,
                self.store,
                public_key,
                new_run=True,
                from_newest=asked.from_newest,
                tell=carried.append,
            )
        return _in_words(plan, known, bundle, carried)

    def _has_begun(self, known: Plan, wanted: Plan) -> bool:
        """Whether the run that goes on is the one that is asked for, given twice."""
        if self.store.newest_version().version > 0:
            return False
        same = {name: getattr(known, name) for name in _OF_EACH_RUN}
        return msgspec.structs.replace(wanted, **same) == known

    def _configuration(self, asked: NextRun) -> AggregatorConfiguration:
        """Return the configuration of the next run, and keep what the command changes of the file."""
        written = read_configuration(self.configuration_file, AggregatorConfiguration)
        for name in _OF_THE_PROCESS:
            if getattr(written.federation, name) != getattr(self.served.federation, name):
                raise InvalidInputError(
                    f"`{name}` was changed in {self.configuration_file}: stop the aggregator, and begin the "
                    "next run with its start: fedmedclip aggregator --new-run"
                )
        counted = self.store.overrides.applied(written)
        for name in ("bundle", "rounds", "method"):
            if (value := getattr(asked, name)) is not None:
                self.store.overrides.set(name, value, getattr(counted.federation, name))
        configuration = self.store.overrides.applied(written)
        require_paths(self.configuration_file, configuration)
        check_secrets(configuration.broker.relative_to(self.configuration_file.resolve().parent))
        return configuration


def _in_words(plan: Plan, before: Plan, bundle: Bundle, carried: list[str]) -> str:
    digest = plan.bundle_digest.hex()[:16]
    said = [
        f"the run of {plan.begun} begins: {plan.method}, {plan.rounds} rounds, bundle {digest}; members, "
        "keys and roster stay"
    ]
    said.append(f"the head: {'; '.join(carried)}" if carried else "the head begins anew")
    if plan.bundle_digest != before.bundle_digest:
        said.append(f"copy {bundle.folder} to the sites, each goes on by itself once it is there")
        if signer(bundle.folder, bundle.digest) != plan.aggregator_key:
            said.append(
                "sites that pin this aggregator's key take it once it is signed: fedmedclip bundle sign"
            )
    return ". ".join(said)
