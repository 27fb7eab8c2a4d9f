"""Of which rounds of the run each site's update counts, or is to: what it is told, however late it asks."""

from collections.abc import Iterable

from fedmedclip.protocol.database import Database

COUNTED_SCHEMA = """
CREATE TABLE IF NOT EXISTS counted (
    site TEXT, round_number INTEGER, PRIMARY KEY (site, round_number)) WITHOUT ROWID;
"""


class Counted:
    """Site and round of each update that was stored to count, in an aggregator's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, sites: Iterable[str], round_number: int) -> None:
        """Note that updates of sites for a round count."""
        with self._database.transaction() as database:
            database.executemany(
                "INSERT OR IGNORE INTO counted VALUES (?, ?)", [(site, round_number) for site in sites]
            )

    def forget(self, site: str, round_number: int) -> None:
        """Note that an update was dropped, or lost, before it was aggregated."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM counted WHERE site = ? AND round_number = ?", (site, round_number))

    def holds(self, site: str, round_number: int) -> bool:
        """Whether an update of a site for a round counts."""
        query = "SELECT 1 FROM counted WHERE site = ? AND round_number = ?"
        return self._database.row(query, (site, round_number)) is not None
