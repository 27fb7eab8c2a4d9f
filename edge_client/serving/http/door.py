"""The door itself: a server in a thread of its own."""

from fedmedclip.edge_client.serving.http.application import application
from fedmedclip.edge_client.serving.http.backing import Backing
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.web.server import WebServer
from fedmedclip.protocol.web.settings import read_token


class HttpDoor(WebServer):
    """Listens from `start` to `stop`. `port` is the real one, also where the settings say 0.

    Raises InvalidInputError for a token or certificates that cannot be used.
    """

    def __init__(self, settings: HttpSettings, backing: Backing) -> None:
        token = read_token(settings)
        super().__init__(settings, lambda hurry: application(settings, token, backing, hurry, self.stopping))
