"""What msgspec raises for bytes that are not the JSON or MessagePack of what is wanted."""

import msgspec

MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Its own errors, and Python's for text that is not UTF-8 and for what is nested too deeply."""
