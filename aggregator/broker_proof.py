"""Refusing a broker that lets in clients without a certificate, where this aggregator shows one."""

import logging

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.probe import admits_without_certificate
from fedmedclip.protocol.link.settings import LinkSettings

log = logging.getLogger("fedmedclip.aggregator")


class BrokerProof:
    """`unproven` are the broker's settings while it is not known that it refuses who shows no certificate."""

    def __init__(self, unproven: LinkSettings | None) -> None:
        self._unproven = unproven

    def look(self) -> None:
        """Look once whether the broker asks for certificates, when it is there to be asked.

        Raises InvalidInputError when it does not.
        """
        if self._unproven is None:
            return
        admits = admits_without_certificate(self._unproven)
        if admits:
            raise InvalidInputError(
                f"the broker at {self._unproven.address} lets in clients that show no certificate; let it "
                "ask for them (Mosquitto: require_certificate true), or start with --insecure"
            )
        if admits is None:
            log.warning(
                "whether the broker asks for certificates could not be told; the next connection tells"
            )
        else:
            self._unproven = None
