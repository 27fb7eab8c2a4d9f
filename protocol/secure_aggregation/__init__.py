"""Sums of which nobody sees the parts: the arithmetic and the cryptography of secure aggregation.

Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", the protocol for
active adversaries, whose keys are signed and whose survivors are confirmed. `docs/protocol.md`, section
"Secure aggregation", has every byte.

    projection.py   a head's arrays to a shorter vector, linearly, and back
    integers.py     that vector to integers modulo 2**b, and how they are packed
    masks.py        key pairs, and the masks that cancel in the sum
    shamir.py       a secret in n shares, of which any t give it back
    shares.py       the shares that a site makes for its peers: sealed, committed to, opened
"""
