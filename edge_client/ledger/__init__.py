"""The ledger: a hash-chained record of every message that left this site or came, and what shows it true."""
