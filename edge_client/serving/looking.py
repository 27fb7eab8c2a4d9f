"""What a service's state says, whether the service runs or not: what waits, what was put aside, drift."""

from contextlib import closing
from pathlib import Path

import msgspec

from fedmedclip.edge_client.heads.heads_file import load_trusted_heads
from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.configuration import ServeConfiguration
from fedmedclip.edge_client.serving.drift.noting import drift_report
from fedmedclip.edge_client.serving.drift.reference import reference_of
from fedmedclip.edge_client.serving.drift.report import DriftReport
from fedmedclip.edge_client.serving.journal import Journal
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.state_folder import is_claimed
from fedmedclip.protocol.trust.decision import trust_of_user


class Undelivered(msgspec.Struct, frozen=True):
    """A delivery that was put aside: of which answer, by which outlet, and why."""

    id: str
    outlet: str
    reason: str


class Status(msgspec.Struct, frozen=True):
    """How a service stands. `deliveries_waiting` is by outlet; `aside` are the answers that say why."""

    running: bool
    waiting: int
    answered: int
    deliveries_waiting: dict[str, int]
    aside: list[Answer]
    deliveries_aside: list[Undelivered]

    def lines(self) -> list[str]:
        """Return all of it for a person."""
        lines = [
            f"the service {'runs' if self.running else 'does not run'}",
            f"{self.waiting} files wait for an answer, {self.answered} answers are remembered",
        ]
        lines += [f"{count} answers wait for {outlet}" for outlet, count in self.deliveries_waiting.items()]
        for answer in self.aside:
            reason = "; ".join(result.reason or "" for result in answer.results)
            lines.append(f"aside: {answer.id}, by {answer.door}, {answer.name}: {reason}")
        for found in self.deliveries_aside:
            lines.append(f"not delivered: {found.id} by {found.outlet}: {found.reason}")
        return lines


def status_of(configuration_file: Path) -> Status:
    """Return how the service of a configuration stands. Raises InvalidInputError where it never ran."""
    state = _state_of(configuration_file, read_configuration(configuration_file, ServeConfiguration))
    with closing(Journal(state / "serve.db")) as journal:
        return Status(
            running=is_claimed(state),
            waiting=len(journal.waiting()),
            answered=journal.count("answered"),
            deliveries_waiting=journal.counts(),
            aside=journal.aside(),
            deliveries_aside=[Undelivered(*found) for found in journal.deliveries_aside()],
        )


def drift_of(configuration_file: Path) -> DriftReport:
    """Return what the service's watch for drift has found, against the heads that answer now.

    Raises InvalidInputError where the service never ran, and BundleError and HeadError for files that cannot
    be used.
    """
    configuration = read_configuration(configuration_file, ServeConfiguration)
    settings, state = configuration.serve, _state_of(configuration_file, configuration)
    trust = trust_of_user(insecure=settings.insecure)
    bundle = open_bundle(beside(configuration_file, settings.bundle), with_text=False, with_encoder=False)
    trust.require_bundle(bundle)
    heads = None
    if settings.heads is not None:
        heads = load_trusted_heads(beside(configuration_file, settings.heads), bundle, trust)
    reference = reference_of(heads, tuple(bundle.manifest.class_names))
    return drift_report(state, bundle.digest.hex(), reference)


def _state_of(configuration_file: Path, configuration: ServeConfiguration) -> Path:
    state = beside(configuration_file, configuration.serve.state)
    if not (state / "serve.db").is_file():
        raise InvalidInputError(
            f"{state} holds nothing of a service yet; start it: fedmedclip serve --config "
            f"{configuration_file}"
        )
    return state
