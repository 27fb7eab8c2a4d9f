"""The OpenAPI document of `fedmedclip serve`: `python -m docs.generators.openapi` writes it anew."""

import msgspec

from docs.generators.rooms import ROOT
from fedmedclip.edge_client.serving.http.openapi import document

FILE = ROOT / "docs" / "openapi.json"


def openapi_text() -> bytes:
    """Return what the file holds."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2) + b"\n"


if __name__ == "__main__":
    FILE.write_bytes(openapi_text())
