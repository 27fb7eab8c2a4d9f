"""An invitation: the small file that the coordinator gives to one hospital, and all that this needs to ask.

It is a TOML file, so that people can read whom it invites where. Whoever has it can ask to join in that
site's name until it is used or expires, so it travels as a password does. The coordinator's signature over
its fields shows that none was changed on the way.
"""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.protocol.configuration import convert, parse_toml
from fedmedclip.protocol.configuration.annotations import PublicKeyInHexadecimal
from fedmedclip.protocol.enrolment.token import invitation_number
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.roster.entries import Seconds
from fedmedclip.protocol.signature import SigningKey, is_signed_by

FORMAT = 1
Digits = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="64 hexadecimal digits")]
Certificate = Annotated[str, Meta(max_length=8192, description="a certificate in PEM")]
_DOMAIN = b"fedmedclip invitation\0"


class Invitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an invitation says.

    `bundle` is the SHA-256 of the bundle's manifest, `authority` the certificate authority's certificate and
    `certificate` the one for knocking at the broker, whose key comes from `token`. `expires` is in seconds
    since 1970.
    """

    format: int
    federation: str
    site: str
    broker_host: str
    broker_port: Annotated[int, Meta(ge=1, le=65535)]
    coordinator_key: PublicKeyInHexadecimal
    authority_sha256: Digits
    bundle: Digits
    made: Seconds
    expires: Seconds
    token: Digits
    authority: Certificate
    certificate: Certificate
    signature: Annotated[str, Meta(pattern=r"^([0-9a-f]{128})?\Z", description="128 hexadecimal digits")] = ""

    @property
    def number(self) -> str:
        """What names this invitation, in 16 hexadecimal digits; it does not give the token away."""
        return invitation_number(bytes.fromhex(self.token)).hex()

    @property
    def signed(self) -> bytes:
        """The bytes over which the signature is: all other fields as a MessagePack array, in their order."""
        fields = [getattr(self, name) for name in self.__struct_fields__ if name != "signature"]
        return _DOMAIN + msgspec.msgpack.encode(fields)


def sign_invitation(invitation: Invitation, key: SigningKey) -> Invitation:
    """Return the invitation with the coordinator's signature."""
    return msgspec.structs.replace(invitation, signature=key.sign(invitation.signed).hex())


def invitation_text(invitation: Invitation) -> str:
    """Return an invitation as the file that is given away."""
    lines = [
        f"# Invitation {invitation.number} to {invitation.site}, for the federation {invitation.federation}.",
        "# Until it is used, or expires, whoever has this file can ask to join in that name: keep it as you",
        f"# keep a password. It expires at {moment(invitation.expires)}. At the hospital:",
        "#   fedmedclip join THIS-FILE --data IMAGES --bundle BUNDLE",
    ]
    for name in invitation.__struct_fields__:
        value = getattr(invitation, name)
        if isinstance(value, str) and "\n" in value:
            lines.append(f'{name} = """\n{value}"""')
        else:
            lines.append(f"{name} = " + (f'"{value}"' if isinstance(value, str) else str(value)))
    return "\n".join(lines) + "\n"


def read_invitation(text: str, where: str) -> Invitation:
    """Return the invitation in a file's text, called `where` in messages; it may have expired.

    Raises InvalidInputError for what is none, was altered, or is of another format.
    """
    values = parse_toml(text, where)
    if values.get("format", FORMAT) != FORMAT:
        raise InvalidInputError(
            f"{where} has format {values['format']!r}, this software reads {FORMAT}; update it"
        )
    invitation = convert(values, Invitation, where)
    key = bytes.fromhex(invitation.coordinator_key)
    if not is_signed_by(key, bytes.fromhex(invitation.signature), invitation.signed):
        raise InvalidInputError(
            f"{where} was altered after the coordinator made it, or cut on its way; ask for it once more"
        )
    return invitation


def require_open(invitation: Invitation, where: str, now: float) -> None:
    """Raise InvalidInputError, with both times, when an invitation has expired at `now` (POSIX seconds)."""
    if now > invitation.expires:
        raise InvalidInputError(
            f"{where} expired at {moment(invitation.expires)}, and it is {moment(now)} here; ask the "
            "coordinator for a new one, or set this machine's clock"
        )


def moment(seconds: float) -> str:
    """Return seconds since 1970 in words for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
