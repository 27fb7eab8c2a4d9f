"""A process that is killed: a watch folder with its queue, a worker that answers anything, and its outlet.

python -m tests.edge_client.serving.folder.killed_service WATCHED STATE
"""

import sys
import threading
from functools import partial
from pathlib import Path

from fedmedclip.edge_client.serving.courier import Courier
from fedmedclip.edge_client.serving.folder.opening import folder_door, folder_outlet
from fedmedclip.edge_client.serving.folder.settings import FolderSettings
from fedmedclip.edge_client.serving.queue import DurableQueue
from tests.edge_client.serving.queue_examples import answer_to, opened_queue


def main(watched: Path, state: Path) -> None:
    """Serve until killed."""
    settings = FolderSettings(path=str(watched), poll_seconds=0.1, settle_seconds=0.1)
    outlet = folder_outlet(settings, watched, None, ("a",), state)
    with opened_queue(state) as queue:
        courier = Courier(queue, outlet)
        queue.when_delivery_is_added(courier.news)
        courier.start()
        threading.Thread(target=partial(_answer, queue, outlet), daemon=True).start()
        folder_door(settings, watched, queue, state).start()
        print("serving", flush=True)
        threading.Event().wait()


def _answer(queue: DurableQueue, outlet) -> None:
    while (work := queue.take()) is not None:
        answer = answer_to(work.id, work.arrival, work.received_at)
        payload = outlet.prepare(work.arrival, work.content, answer, None)
        queue.finish(work, answer, {outlet.name: payload})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
