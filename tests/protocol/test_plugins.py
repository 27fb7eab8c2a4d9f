"""What other distributions bring, and what is wrong with it: one line that names the distribution."""

import pytest

from fedmedclip.aggregator.rules.names import rule_named
from fedmedclip.protocol.codecs import codec_named, known_codecs
from fedmedclip.protocol.errors import AggregationError, InvalidInputError
from fedmedclip.protocol.heads.methods import faults_of_others, known_methods, method_named
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from tests.distributions import install

METHODS = "fedmedclip.methods"
ARRAYS_ALONE = """
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.heads.methods import Method

METHOD = Method(name="bare", shared_arrays=lambda size, classes: HeadSpecification(()))
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def add(name, modules, entry_points):
        install(tmp_path, name, modules, entry_points)

    return add


def test_a_method_from_outside_is_known_and_found(outside):
    outside("bare-method", {"bare_method": ARRAYS_ALONE}, {METHODS: {"bare": "bare_method:METHOD"}})
    assert {"bare", "fedmedclip"} <= set(known_methods())
    assert method_named("bare").name == "bare"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("broken", "broken_method:METHOD", r"'broken' of distribution stranger .*ZeroDivisionError"),
        ("absent", "no_such_module:METHOD", r"'absent' of distribution stranger .*ModuleNotFoundError"),
        ("empty", "bare_method:MISSING", r"'empty' of distribution stranger .*AttributeError"),
        ("text", "bare_method:__name__", r"'text' of distribution stranger is none: .* is a str"),
        ("other", "bare_method:METHOD", r"method 'other' calls itself 'bare'"),
    ],
)
def test_a_method_that_cannot_be_used_is_named_with_its_distribution(outside, name, value, words):
    modules = {"bare_method": ARRAYS_ALONE, "broken_method": "1 / 0"}
    outside("stranger", modules, {METHODS: {name: value}})
    with pytest.raises(InvalidInputError, match=words) as raised:
        method_named(name)
    assert "\n" not in str(raised.value)


def test_two_distributions_of_one_name_are_both_named(outside):
    for distribution in ("first", "second"):
        outside(distribution, {"bare_method": ARRAYS_ALONE}, {METHODS: {"twice": "bare_method:METHOD"}})
    with pytest.raises(InvalidInputError, match="distribution first and distribution second both bring"):
        method_named("twice")


def test_a_built_in_name_cannot_be_taken_and_who_tries_is_named(outside):
    built_in = method_named("fedclip")
    outside("thief", {"bare_method": ARRAYS_ALONE}, {METHODS: {"fedclip": "bare_method:METHOD"}})
    with pytest.raises(InvalidInputError, match="thief brings a method 'fedclip', which is built in"):
        known_methods()
    method_named.cache_clear()
    assert method_named("fedclip") is built_in


def test_a_rule_from_outside_must_give_a_delta_of_the_head(outside):
    source = "def wrong(updates, specification):\n    return {}\n\nTEXT = 'text'\n"
    group = {"wrong": "rules_from_outside:wrong", "text": "rules_from_outside:TEXT"}
    outside("ruler", {"rules_from_outside": source}, {"fedmedclip.aggregation_rules": group})
    with pytest.raises(AggregationError, match="aggregation rule 'wrong' gave no delta: the head has arrays"):
        rule_named("wrong")([], shared_head_specification("fedclip", 4))
    with pytest.raises(InvalidInputError, match="'text' of distribution ruler is none"):
        rule_named("text")
    with pytest.raises(
        InvalidInputError, match=r"rule 'magic' \(known: .*, text, trimmed_mean, weighted_mean, wrong"
    ):
        rule_named("magic")


def test_a_codec_from_outside_takes_parameters_as_ours_do(outside):
    source = (
        "from fedmedclip.protocol.codecs.quantiser import Quantiser\n"
        "from fedmedclip.protocol.codecs.sparse import SparseCodec\n\n"
        "def sparse(name):\n"
        "    return SparseCodec(name.name, name.take_number('share', 0.5, 0.1, 1.0), Quantiser(8))\n"
    )
    outside("coder", {"coder": source}, {"fedmedclip.codecs": {"half": "coder:sparse"}})
    assert "half" in known_codecs()
    assert codec_named("half:share=0.25").share == 0.25
    with pytest.raises(InvalidInputError, match="share is '2'"):
        codec_named("half:share=2")
    with pytest.raises(InvalidInputError, match="'half' has no parameter bits"):
        codec_named("half:bits=2")


def test_what_a_method_from_outside_raises_is_named_and_what_ours_do_is_a_fault_to_be_seen():
    with (
        pytest.raises(
            InvalidInputError, match=r"method 'theirs', .* \(ZeroDivisionError: division by zero\)"
        ),
        faults_of_others("theirs"),
    ):
        1 / 0  # noqa: B018 - it raises
    with pytest.raises(ZeroDivisionError), faults_of_others("fedmedclip"):
        1 / 0  # noqa: B018 - it raises
    with pytest.raises(AggregationError), faults_of_others("theirs"):
        raise AggregationError("as it is")
