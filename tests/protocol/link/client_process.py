"""A client in a process of its own, to be killed: HOST PORT CLIENT_ID TOPIC_FILTER WILL_TOPIC.

It prints each event's name, and never acknowledges a message.
"""

import sys

from fedmedclip.protocol.link.link import Link, LinkSettings, Message, Received

host, port, client_id, topic_filter, will_topic = sys.argv[1:]
link = Link(LinkSettings(host=host, port=int(port)), client_id=client_id, will=Message(will_topic, b"gone"))
link.start()
link.subscribe(topic_filter)
while True:
    event = link.next_event(1.0)
    if event is not None:
        details = event.payload.decode() if isinstance(event, Received) else ""
        print(type(event).__name__, details, flush=True)
