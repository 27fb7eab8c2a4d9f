"""The process behind `EmbeddedBroker`: amqtt on one loopback port, until standard input closes.

Reading standard input makes the broker end with the process that started it, however that one ends.
"""

import asyncio
import logging
import sys

from amqtt.broker import Broker

ANONYMOUS = "amqtt.plugins.authentication.AnonymousAuthPlugin"


async def serve(address: str) -> None:
    """Run an anonymous MQTT 3.1.1 broker on host:port until standard input closes."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": address}},
            "plugins": {ANONYMOUS: {"allow_anonymous": True}},
        }
    )
    await broker.start()
    await asyncio.to_thread(sys.stdin.read)
    await broker.shutdown()


if __name__ == "__main__":
    # amqtt logs each client that tries MQTT 5 first and each that hangs up as an error.
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(sys.argv[1]))
