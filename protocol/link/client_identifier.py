"""Under which name a broker finds a party's session again: one that nobody else can know.

Whoever connects with the name of another takes over its session. So a name is derived from the private key of
the party, and is the same after each restart. It has the 23 letters and digits that every broker takes (MQTT
3.1.1, section 3.1.3.1).
"""

from base64 import b32encode

from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.signature import SigningKey

_PREFIX = "fmc"
_PURPOSE = b"fedmedclip mqtt client identifier"
# 100 bits, in 20 letters and digits.
_CHARACTERS = 20


def client_identifier(settings: LinkSettings, key: SigningKey, federation: str, site: str = "") -> str:
    """Return what `settings` say, else "fmc" and the first 100 bits of HKDF-SHA256 of the private key in
    base32 (RFC 4648, lower case). `site` is empty for the aggregator.
    """
    if settings.client_id is not None:
        return settings.client_id
    information = b"\0".join([_PURPOSE, federation.encode(), site.encode()])
    return _PREFIX + b32encode(key.derive(information, _CHARACTERS)).decode().lower()[:_CHARACTERS]
