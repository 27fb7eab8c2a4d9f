"""What goes wrong for a while is said once, and once more when it is over."""

import logging

log = logging.getLogger("fedmedclip.serving.folder")


class Trouble:
    """Says each line once, until it is over. Of one thread."""

    def __init__(self) -> None:
        self._standing: dict[str, str] = {}

    def begins(self, what: str, line: str) -> None:
        """Log a warning about `what`, unless this line about it was the last one."""
        if self._standing.get(what) != line:
            self._standing[what] = line
            log.warning("%s", line, extra={"event": "folder.trouble"})

    def ends(self, what: str, line: str) -> None:
        """Log that it is over, where something was said."""
        if self._standing.pop(what, None) is not None:
            log.info("%s", line, extra={"event": "folder.trouble_over"})
