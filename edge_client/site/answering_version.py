"""Which version of a run a hospital answers with, whoever activated it."""

from pathlib import Path

from fedmedclip.edge_client.versions.records import VersionRecord
from fedmedclip.edge_client.versions.versions import Versions
from fedmedclip.protocol.messages import Plan


class AnsweringVersion:
    """Asks what is kept in a state folder."""

    def __init__(self, state_folder: Path) -> None:
        self._versions = Versions(state_folder)

    def active_version(self, plan: Plan) -> int | None:
        """Return the version of a run with which the site answers; None where it answers with none of it."""
        record = self._versions.active()
        if record is None or record.plan != plan.identity.hex() or _zero_shot_answers(record):
            return None
        return record.version


def _zero_shot_answers(record: VersionRecord) -> bool:
    return record.figures is not None and record.figures.answers == "zero_shot"
