"""`docs/asyncapi.yaml` and the code say the same: topics, messages, tags, fields, bounds, QoS, retention.

That the document is valid AsyncAPI 3 at all is checked with the command at the end of `docs/protocol.md`.
"""

import inspect
import json
import random
from typing import Any, get_args

import msgspec
import pytest
import yaml
from msgspec import inspect as structures

from fedmedclip.aggregator import loop as aggregator_loop
from fedmedclip.aggregator import publishing
from fedmedclip.aggregator import service as aggregator_service
from fedmedclip.edge_client.site import post
from fedmedclip.edge_client.site import service as site_service
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.edge_client.site.post import Post
from fedmedclip.protocol import messages, topics
from fedmedclip.protocol.envelope import CARRIED, MAGIC, NO_IDENTITY, VERSION, seal
from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.link.client import Message as LinkMessage
from fedmedclip.protocol.link.link import Link
from fedmedclip.protocol.link.settings import LARGEST_MESSAGE_BYTES, LinkSettings
from fedmedclip.protocol.signature import SIGNATURE_BYTES, new_signing_key
from tests import ROOT
from tests.simulation.federation.loopback import FEDERATION, Loopback
from tests.simulation.federation.secure_events import SECURE, lying

DOCUMENT = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
SHARING = PolicySettings()
PARTS = {
    "ObjectReference",
    "Moment",
    "PrivacySpent",
    "PrivacyTerms",
    "Secure",
    "Figures",
    "Listed",
    "SealedShares",
}
MESSAGES = {message.__name__: message for message in get_args(messages.Message)}


def resolved(value: Any) -> Any:
    """Replace references by what they point to; a title beside one is kept."""
    if isinstance(value, list):
        return [resolved(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" not in value:
        return {key: resolved(item) for key, item in value.items()}
    found = DOCUMENT
    for step in value["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return {**resolved(found), **{key: item for key, item in value.items() if key != "$ref"}}


def schema_of(of: structures.Type) -> dict[str, Any]:
    """The JSON schema by which the document must describe a type that msgspec decodes."""
    match of:
        case structures.Metadata():
            return schema_of(of.type)
        case structures.IntType():
            return {"type": "integer"} | bounds(minimum=of.ge, maximum=of.le)
        case structures.FloatType():
            return {"type": "number"}
        case structures.BoolType():
            return {"type": "boolean"}
        case structures.NoneType():
            return {"type": "null"}
        case structures.LiteralType():
            return {"enum": list(of.values)}
        case structures.StrType():
            return {"type": "string"} | bounds(minLength=of.min_length, maxLength=of.max_length)
        case structures.BytesType():
            return {"type": "string", "format": "binary"} | bounds(
                minLength=of.min_length, maxLength=of.max_length
            )
        case structures.TupleType():
            both = {"minItems": len(of.item_types), "maxItems": len(of.item_types)}
            return {
                "type": "array",
                "items": list(map(schema_of, of.item_types)),
                "additionalItems": False,
            } | both
        case structures.ListType():
            items = {"items": schema_of(of.item_type)}
            return {"type": "array"} | items | bounds(minItems=of.min_length, maxItems=of.max_length)
        case structures.DictType():
            return {
                "type": "object",
                "propertyNames": schema_of(of.key_type),
                "additionalProperties": schema_of(of.value_type),
            } | bounds(maxProperties=of.max_length)
        case structures.UnionType():
            return {"anyOf": in_order([schema_of(item) for item in of.types])}
        case structures.StructType():
            assert of.array_like
            assert of.forbid_unknown_fields
            fields = [{"title": field.encode_name} | schema_of(field.type) for field in of.fields]
            items = fields if of.tag is None else [{"title": "tag", "const": of.tag}, *fields]
            # What travels has every item, also those that a stored plan of before may lack.
            count = {"minItems": len(items), "maxItems": len(items)}
            return {"type": "array", "items": items, "additionalItems": False} | count
    raise AssertionError(f"no schema for {of}")


def bounds(**values: int | None) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}


def in_order(alternatives: list[Any]) -> list[Any]:
    return sorted(alternatives, key=lambda item: json.dumps(item, sort_keys=True))


def normal(schema: Any) -> Any:
    """Sort alternatives, whose order says nothing."""
    if isinstance(schema, list):
        return [normal(item) for item in schema]
    if isinstance(schema, dict):
        found = {key: normal(item) for key, item in schema.items()}
        return found | {"anyOf": in_order(found["anyOf"])} if "anyOf" in found else found
    return schema


@pytest.mark.parametrize("name", MESSAGES)
def test_each_message_has_the_tag_fields_types_and_bounds_of_the_code(name):
    documented = resolved(DOCUMENT["components"]["messages"][name]["payload"])
    assert normal(documented) == normal(schema_of(structures.type_info(MESSAGES[name])))


def test_no_other_message_is_documented():
    assert set(DOCUMENT["components"]["messages"]) == set(MESSAGES)
    assert set(DOCUMENT["components"]["schemas"]) == {*MESSAGES, *PARTS}


def test_the_channels_are_the_topics_of_the_code():
    documented = {name: channel["address"] for name, channel in DOCUMENT["channels"].items()}
    made = {}
    for name, function in inspect.getmembers(topics, inspect.isfunction):
        parameters = inspect.signature(function).parameters
        if "federation" in parameters:
            made[name] = function(*(f"{{{parameter}}}" for parameter in parameters))
            assert list(DOCUMENT["channels"][name]["parameters"]) == list(parameters)
    assert documented == made


def test_each_channel_carries_the_messages_that_the_code_lets_pass():
    documented = {name: list(channel["messages"]) for name, channel in DOCUMENT["channels"].items()}
    assert documented == {name: [message.__name__ for message in of] for name, of in CARRIED.items()}


def test_the_envelope_is_the_one_of_the_code():
    magic, version, body, signature = resolved(DOCUMENT["components"]["messageTraits"]["envelope"])[
        "x-envelope"
    ]
    sealed = seal(messages.HeadRequest(0), "fmc1/trial/up/site-a", new_signing_key(), NO_IDENTITY)
    assert bytes.fromhex(magic["hexadecimal"]) == MAGIC
    assert bytes.fromhex(version["hexadecimal"]) == bytes([VERSION])
    assert signature["bytes"] == SIGNATURE_BYTES
    framed = magic["bytes"] + version["bytes"] + signature["bytes"]
    assert len(sealed) == framed + len(messages.encode_message(messages.HeadRequest(0)))
    assert body["format"] == "MessagePack"
    for message in DOCUMENT["components"]["messages"].values():
        assert message["traits"] == [{"$ref": "#/components/messageTraits/envelope"}]


class NoLedger:
    """Forgets what is sent: its site is played in memory."""

    def record(self, *entry):
        pass

    def record_all(self, drafts):
        pass


class Recorder(Loopback):
    """Notes who published which message on which topic, and whether retained."""

    def __init__(self, *arguments, **settings):
        self.seen: set[tuple[str, str, str, bool]] = set()
        super().__init__(*arguments, **settings)

    def from_aggregator(self, outgoing):
        for item in outgoing:
            self.note("send", item.topic, item.message, item.retain)
        super().from_aggregator(outgoing)

    def from_site(self, site, sent):
        published = Post(FEDERATION, site, self.keys[site], NoLedger()).up(sent, self.plan.identity, 1)
        for message, carried in zip(sent, published, strict=True):
            self.note("receive", carried.topic, message, carried.retain)
        super().from_site(site, sent)

    def publish_status(self, site):
        status = self.agents[site].status(online=True)
        published = Post(FEDERATION, site, self.keys[site], NoLedger()).status(status)
        self.note("receive", published.topic, status, published.retain)
        super().publish_status(site)

    def note(self, action, topic, message, retain):
        channel = topic.removeprefix(f"fmc1/{FEDERATION}/").split("/")[0]
        self.seen.add((action, channel, type(message).__name__, retain))


def once_failing(train):
    """Return a training that cannot be done the first time."""
    failures = iter([HeadError("training diverged")])

    def training(*arguments):
        if (failure := next(failures, None)) is not None:
            raise failure
        return train(*arguments)

    return training


def test_a_disturbed_federation_publishes_exactly_what_is_documented(tmp_path):
    documented = set()
    for operation in DOCUMENT["operations"].values():
        channel = operation["channel"]["$ref"].rsplit("/", 1)[1]
        for name in DOCUMENT["channels"][channel]["messages"]:
            documented.add((operation["action"], channel, name, operation["bindings"]["mqtt"]["retain"]))
    federation = Recorder(
        tmp_path, sites=3, rounds=12, embedding_size=80, minimum_sites=2, codec="int8", metrics=SHARING
    )
    late = federation.agents.pop("site-2")
    chance = random.Random(1)
    train = federation.learners["site-1"].train
    federation.learners["site-1"].train = once_failing(train)
    while federation.coordinator.global_head.version < 5:
        federation.step(loss=0.1, chance=chance)
    federation.store.copy_to(tmp_path / "backup.db")
    while federation.coordinator.global_head.version < 9:
        federation.step(loss=0.1, chance=chance)
    federation.restore_aggregator(tmp_path / "backup.db")
    while federation.coordinator.global_head.version < 9:
        federation.step(loss=0.1, chance=chance)
    federation.agents["site-2"] = late
    federation.run(loss=0.15, repeats=0.1, kills=0.01, seed=1)
    # Those of a federation with a roster, which this one has not: tests/aggregator/enrolment.
    rostered = {"RosterNotice", "RenewalRequest", "Renewal"}
    (tmp_path / "sums").mkdir()
    federation.seen |= of_sums(tmp_path / "sums")
    assert federation.seen == {entry for entry in documented if entry[2] not in rostered}


def of_sums(folder):
    """Return what a federation publishes that sums updates under masks, one of whose members lies."""

    def spoilt(message):
        shares = [msgspec.structs.replace(share, sealed=bytes(50)) for share in message.shares]
        return msgspec.structs.replace(message, shares=shares)

    federation = Recorder(folder, sites=5, rounds=1, minimum_sites=3, secure=SECURE)
    lying(federation, "site-4", messages.MaskShares, spoilt)
    while federation.coordinator.global_head.version < 1:
        federation.step()
    return federation.seen


def test_quality_of_service_and_session_are_those_of_the_services():
    for operation in DOCUMENT["operations"].values():
        assert operation["bindings"]["mqtt"]["qos"] == 1
    for function in (Link.publish, Link.subscribe):
        assert inspect.signature(function).parameters["qos"].default == 1
    assert LinkMessage("topic", b"").qos == 1
    for service in (aggregator_service, aggregator_loop, publishing, site_service, post):
        assert "qos" not in inspect.getsource(service)  # both take the default
    binding = DOCUMENT["servers"]["broker"]["bindings"]["mqtt"]
    assert binding["keepAlive"] == LinkSettings().keepalive_seconds
    assert binding["sessionExpiryInterval"] == LinkSettings().session_expiry_seconds
    assert binding["maximumPacketSize"] == 2 * LARGEST_MESSAGE_BYTES
    assert binding["lastWill"]["topic"] == topics.status("{federation}", "{site}")
    assert (binding["lastWill"]["qos"], binding["lastWill"]["retain"]) == (1, True)
