"""A queue in a folder, and what goes in and out of it."""

from contextlib import contextmanager

from fedmedclip.edge_client.inference.provenance import Provenance
from fedmedclip.edge_client.serving.answer import Answer, Result
from fedmedclip.edge_client.serving.arrival import Arrival
from fedmedclip.edge_client.serving.queue import DurableQueue

PROVENANCE = Provenance(software="fedmedclip-edge", bundle="00" * 32, model="tiny", precision="fp32")


def arrival(key="one", content=b"pixels", door="http", **more):
    return Arrival(door=door, key=key, name=f"name of {key}", content=content, **more)


def answer_to(id, arrival, received_at=0.0, label="a", reason=None):
    result = (
        Result(outcome="answered", label=label)
        if reason is None
        else Result(outcome="unreadable", reason=reason)
    )
    return Answer(
        id=id, door=arrival.door, name=arrival.name, received_at=received_at, answered_at=received_at + 1,
        results=[result], provenance=PROVENANCE,
    )  # fmt: skip


def put_aside(work, reason):
    return answer_to(work.id, work.arrival, work.received_at, reason=reason), {}


@contextmanager
def opened_queue(root, most_waiting=100, remember_days=1.0, aside=put_aside):
    queue = DurableQueue(root, most_waiting, remember_days, aside)
    try:
        yield queue
    finally:
        queue.close()


def finish(queue, work, payloads=None):
    answer = answer_to(work.id, work.arrival, work.received_at)
    queue.finish(work, answer, payloads or {})
    return answer


def files(root):
    return sorted(
        path.name for path in root.rglob("*") if path.is_file() and not path.name.startswith("serve.db")
    )
