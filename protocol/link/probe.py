"""Whether a broker lets in clients that show no certificate."""

import secrets
import time

import msgspec

from fedmedclip.protocol.link.link import Connected, Disconnected, Link
from fedmedclip.protocol.link.settings import LinkSettings


def admits_without_certificate(settings: LinkSettings, seconds: float = 10.0) -> bool | None:
    """Return whether the broker lets in a client without certificate, user name and password.

    None when that cannot be told within `seconds`: it could not be reached, or ended the connection without a
    reason. In TLS 1.3 a server refuses a certificate, or that there is none, only after the client's side of
    the handshake is over, so it is MQTT's answer that counts.
    """
    bare = msgspec.structs.replace(
        settings, certificate_file=None, key_file=None, username=None, password_file=None, client_id=None
    )
    until = time.monotonic() + seconds
    with Link(bare, client_id=f"fmcprobe{secrets.token_hex(7)}", lasting=False) as link:
        while (remaining := until - time.monotonic()) > 0:
            match link.next_event(remaining):
                case Connected():
                    return True
                case Disconnected(_, fatal) if fatal:
                    return False
                case _:
                    continue
    return None
