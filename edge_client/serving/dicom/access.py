"""Who may open an association with the node, by titles and hosts."""

import ipaddress
import socket
from dataclasses import dataclass

from fedmedclip.edge_client.serving.dicom.settings import DicomSettings, Peer

# Results, sources and diagnostics of an A-ASSOCIATE-RJ (PS3.8 9.3.4).
_PERMANENT, _TRANSIENT = 1, 2
_SERVICE_USER, _PRESENTATION = 1, 3
_CALLING_NOT_RECOGNISED, _CALLED_NOT_RECOGNISED = 3, 7
_LOCAL_LIMIT = 2


@dataclass(frozen=True)
class Rejection:
    """How an association is rejected, and why, in words without what the peer calls itself."""

    result: int
    source: int
    diagnostic: int
    reason: str


class Access:
    """The door's rules; see `DicomSettings`."""

    def __init__(self, settings: DicomSettings) -> None:
        self._settings = settings

    def rejection(self, *, calling: str, called: str, host: str, open_now: int) -> Rejection | None:
        """Return why a peer at the address `host` may not open an association, None when it may.

        `calling` is its AE title, `called` the one that it calls us; `open_now` counts those that are open.
        """
        settings = self._settings
        if called.strip() != settings.ae_title.strip():
            return Rejection(
                _PERMANENT, _SERVICE_USER, _CALLED_NOT_RECOGNISED, f"{host} called another AE title than ours"
            )
        if not settings.any_peer and not any(_is(peer, calling, host) for peer in settings.peers):
            reason = f"{host} is not one of the peers, by its AE title or its address"
            return Rejection(_PERMANENT, _SERVICE_USER, _CALLING_NOT_RECOGNISED, reason)
        if open_now >= settings.most_associations:
            return Rejection(_TRANSIENT, _PRESENTATION, _LOCAL_LIMIT, "most_associations are open")
        return None


def _is(peer: Peer, calling: str, host: str) -> bool:
    if peer.ae_title.strip() != calling.strip():
        return False
    return peer.host is None or _address(host) in _addresses(peer.host)


def _addresses(host: str) -> set[str]:
    """The addresses of a host, looked up each time: they may change while the node runs."""
    try:
        return {_address(str(found[4][0])) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()


def _address(text: str) -> str:
    """One way to write an address; one of version 4 in the form of version 6 is of version 4."""
    try:
        address = ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
