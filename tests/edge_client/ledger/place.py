"""A ledger as tests use it, and the database beside it."""

from fedmedclip.edge_client.ledger.end import END_SCHEMA, LedgerEnd
from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.segments import segments_in
from fedmedclip.edge_client.ledger.verification import verify
from fedmedclip.protocol.database import Database

NOW = 1_760_000_000.0


class Place:
    """A ledger's folder and the database beside it."""

    def __init__(self, folder):
        self.folder = folder / "ledger"
        self.file = folder / "site.db"
        self.database = Database(self.file, END_SCHEMA, durable=False)
        self.end = LedgerEnd(self.database)

    def open(self, **options):
        return MessageLedger(self.folder, self.end, **options)

    def fill(self, count, **options):
        ledger = self.open(**options)
        for number in range(count):
            ledger.record("out", "fmc1/f/up/a", bytes([number]), "Update", f"run 1 round {number} attempt 0")
        ledger.close()

    def copy_database(self):
        copy = self.file.with_name("copy.db")
        self.database.copy_to(copy)
        return copy

    def restore_database(self, copy):
        self.database.close()
        copy.replace(self.file)
        self.database = Database(self.file, END_SCHEMA, durable=False)
        self.end = LedgerEnd(self.database)

    def verify(self):
        return verify(self.folder, self.end.mark())

    @property
    def segment(self):
        return segments_in(self.folder)[-1][1]
