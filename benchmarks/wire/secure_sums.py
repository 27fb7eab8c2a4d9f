"""What a round costs under masks, beside a plain one: bytes up and down, of one site.

    python -m benchmarks.wire.secure_sums

Sizes of sealed messages, topics and MQTT's own bytes left out. The plain update is random numbers in the
codec that `--uplink` names, or that the method needs; a sum's size depends on no value.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedmedclip.protocol import messages as wire
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.methods import codec_for
from fedmedclip.protocol.heads.shared_heads import sends_statistics, shared_head_specification
from fedmedclip.protocol.secure_aggregation.integers import modulus_bits, packed_bytes
from fedmedclip.protocol.secure_aggregation.projection import Shared, linear_codec_named, projection_of
from fedmedclip.protocol.secure_aggregation.shamir import threshold_of
from fedmedclip.protocol.signature import new_signing_key

KEY = new_signing_key()
DIGEST = bytes(32)
SHARES = wire.SealedShares(bytes(50), bytes(16), bytes(16))
CASES = (
    ("fedmedclip", 256, 4),
    ("fedmedclip", 512, 10),
    ("whitened-memory", 256, 4),
    ("whitened-memory", 512, 10),
    ("one-message", 256, 4),
    ("one-message", 512, 10),
)


def size(*messages: wire.Message) -> int:
    """Return the bytes of sealed messages."""
    return sum(len(seal(message, "fmc1/trial/up/site-a", KEY, NO_IDENTITY)) for message in messages)


def random_delta(method: str, embedding_size: int, classes: int) -> NamedArrays:
    """Return arrays of the method's shared head, of random numbers around 0.01."""
    generator = np.random.default_rng(0)
    arrays: NamedArrays = {}
    for tensor in shared_head_specification(method, embedding_size, classes).tensors:
        array = (0.01 * generator.standard_normal(tensor.shape)).astype(np.float32)
        arrays[tensor.name] = array + array.T if tensor.symmetric else array
    return arrays


def secure_bytes(
    codec: str, bits: int, sites: int, method: str, embedding_size: int, classes: int, *, roster: bool
) -> tuple[list[int], list[int]]:
    """Return the bytes that a site sends and receives in a round, the vector apart from the rest."""
    specification = shared_head_specification(method, embedding_size, classes)
    shared = Shared(1, 0, random_delta(method, embedding_size, classes))
    linear = linear_codec_named(codec)
    if sends_statistics(method):
        linear = replace(linear, rank=0)
    length = projection_of(linear, specification, shared).length + 1
    masked = packed_bytes(length, modulus_bits(bits, sites))
    key = None if roster else bytes(32)
    listed = [wire.Listed(f"site-{place}", key, DIGEST, DIGEST, bytes(64)) for place in range(sites)]
    places, needed = list(range(sites)), threshold_of(sites)
    sends: list[wire.Message] = [
        wire.MaskKeys(1, DIGEST, DIGEST, False),
        wire.MaskShares(DIGEST, bytes(16), [SHARES] * sites),
        wire.Confirmation(DIGEST, places),
        wire.Reveal(DIGEST, [bytes(17)] * sites),
    ]
    receives: list[wire.Message] = [
        wire.Participants(1, [1.0] * len(specification.tensors), True, listed),
        wire.RoutedShares(DIGEST, [(place, SHARES) for place in places]),
        wire.Survivors(DIGEST, places),
        wire.Confirmations(DIGEST, [(place, bytes(64)) for place in places[:needed]]),
        wire.Receipt(1, True, "", False, bytes(8)),
    ]
    vector = size(wire.MaskedUpdate(DIGEST, bytes(masked)))
    return [vector, size(*sends)], [0, size(*receives)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codec", default="subspace", help="linear codec (default: %(default)s)")
    parser.add_argument("--bits", type=int, default=8, help="bits of a site's integer (default: %(default)s)")
    parser.add_argument(
        "--uplink", help="codec of the plain update (default: what the method needs, or lowrank)"
    )
    options = parser.parse_args(arguments)
    names = ("plain up", "vector", "keys up", "keys down", "up/plain")
    print(f"{'method':<16}{'D':>4}{'C':>4}{'n':>4}" + "".join(f"{name:>10}" for name in names))
    for method, embedding_size, classes in CASES:
        specification = shared_head_specification(method, embedding_size, classes)
        delta = random_delta(method, embedding_size, classes)
        encoded = encode_head(codec_named(codec_for(method, options.uplink)), delta, specification).data
        plain = size(wire.Update(1, 300, encoded, 0))
        for sites in (3, 5, 10, 30):
            (vector, keys), (_, down) = secure_bytes(
                options.codec, options.bits, sites, method, embedding_size, classes, roster=True
            )
            print(
                f"{method:<16}{embedding_size:>4}{classes:>4}{sites:>4}{plain:>10}{vector:>10}{keys:>10}{down:>10}"
                f"{(vector + keys) / plain:>10.1f}"
            )


if __name__ == "__main__":
    main()
