"""When a certificate of the federation ends."""

import msgspec


class CertificateEnd(msgspec.Struct, frozen=True):
    """Whose certificate it is, of what kind, and when it ends (seconds since 1970)."""

    whose: str
    ends: float
