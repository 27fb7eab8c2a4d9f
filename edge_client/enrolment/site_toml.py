"""The site.toml that `fedmedclip join` writes: what invitation and operator said, and where files lie."""

import json
import os
from pathlib import Path

from fedmedclip.protocol.enrolment.invitation import Invitation

STATE = "site-state"

_TEXT = """\
# Written by `fedmedclip join` from invitation {number}. Every other setting: fedmedclip init site
# Paths are relative to this file.

[site]
federation = {federation}
name = {site}
bundle = {bundle}
data = {data}
state = "{state}"
aggregator_key = "{key}"   # the coordinator's; the roster says when it changes
roster = "{state}/roster"

[policy]
approve = "ask"   # a plan is trained once `fedmedclip site approve` has said so; or "automatic"

[broker]
host = {host}
port = {port}
tls = true
ca_file = "{state}/ca.pem"
certificate_file = "{state}/tls.pem"
key_file = "{state}/tls.pem"
# transport = "websockets"         # with port 443, where a firewall lets nothing else out
# proxy = "proxy.example.org:3128" # an HTTP proxy that allows CONNECT
"""


def site_toml(invitation: Invitation, folder: Path, data: Path, bundle: Path) -> str:
    """Return the text of a site.toml that will lie in `folder`."""
    return _TEXT.format(
        number=invitation.number,
        federation=_text(invitation.federation),
        site=_text(invitation.site),
        bundle=_text(_seen_from(folder, bundle)),
        data=_text(_seen_from(folder, data)),
        state=STATE,
        key=invitation.coordinator_key,
        host=_text(invitation.broker_host),
        port=invitation.broker_port,
    )


def _seen_from(folder: Path, path: Path) -> str:
    """Return a path that was given in the current folder as it is meant in a file in `folder`."""
    return str(path) if path.is_absolute() else os.path.relpath(path, folder)


def _text(value: str) -> str:
    # JSON's texts are TOML's, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
