"""Which rounds were made without which sites, because the operator dropped them."""

from fedmedclip.protocol.database import Database

DROPPED_SCHEMA = """
CREATE TABLE IF NOT EXISTS dropped (site TEXT, round_number INTEGER, PRIMARY KEY (site, round_number));
"""


class Dropped:
    """Site and round of what does not count, in an aggregator's database. Of the run that goes on only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, site: str, round_number: int) -> None:
        """Let an update of a site for a round not count, now or later."""
        with self._database.transaction() as database:
            database.execute("INSERT OR IGNORE INTO dropped VALUES (?, ?)", (site, round_number))

    def holds(self, site: str, round_number: int) -> bool:
        """Whether an update of a site for a round does not count."""
        query = "SELECT 1 FROM dropped WHERE site = ? AND round_number = ?"
        return self._database.row(query, (site, round_number)) is not None

    def sites(self, round_number: int) -> list[str]:
        """Return the sites that were dropped from a round, sorted."""
        query = "SELECT site FROM dropped WHERE round_number = ? ORDER BY site"
        return [site for (site,) in self._database.rows(query, (round_number,))]
