"""The errors a person can do something about.

Each of these carries one clear line: what is wrong, where, and what to do. The command line prints that
line and exits with code 2; anything else is a bug and shows its traceback.
"""

from fedmedclip.protocol.visible import one_line


class FedMedClipError(Exception):
    """Base of every error whose message is meant for the person at the keyboard.

    As text it is one line of bounded length, whatever was sent here that it quotes.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class InvalidInputError(FedMedClipError):
    """A path, configuration value or data folder that cannot be used."""


class LinkError(FedMedClipError):
    """Something that the MQTT link cannot or must not do, such as sending a message above the limit."""


class BundleError(FedMedClipError):
    """A bundle that is missing, damaged, or not the one that is needed."""


class HeadError(FedMedClipError):
    """Named arrays that do not match a head's specification, or belong to another bundle."""


class AggregationError(FedMedClipError):
    """A round that cannot be made into a version by what is installed or configured here, such as a rule."""


class MessageError(FedMedClipError):
    """Received bytes that are refused: malformed, oversized, badly signed, or out of place."""


class OtherVersionError(MessageError):
    """A message is of a version of the protocol that this software does not speak."""


class CodecError(MessageError):
    """An encoded head or delta that is refused by its codec."""


class StorageError(FedMedClipError):
    """A durable file that cannot be read or written: damaged, locked for long, or on a full disk."""


class FullDiskError(StorageError):
    """A disk without space: it passes when somebody frees some, so whoever is restarted goes on."""
