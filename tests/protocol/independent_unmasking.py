"""What an aggregator and the survivors do to unmask a sum, written from `docs/protocol.md` alone.

Plain integers and the primitives of `cryptography`; nothing of this project.
"""

import hashlib

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

P = 2**130 - 5


def key(secret, purpose, context=b""):
    info = b"fedmedclip secure aggregation 1: " + purpose + b"\0" + context
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


def agree(private, public):
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def stream(secret, purpose, digest, length, b):
    encryptor = Cipher(ChaCha20(key(secret, purpose, digest), bytes(16)), None).encryptor()
    data = encryptor.update(bytes(4 * length))
    return [int.from_bytes(data[4 * i : 4 * i + 4], "little") % 2**b for i in range(length)]


def commitment(value):
    return hashlib.sha256(b"fedmedclip share" + value).digest()[:16]


def open_share(sealed, cipher_seed, public, sender, receiver, digest):
    between = digest + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
    secret = key(agree(key(cipher_seed, b"cipher key"), public), b"shares", between)
    opened = ChaCha20Poly1305(secret).decrypt(bytes(12), sealed, b"")
    return opened[:17], opened[17:]


def at_zero(points):
    total = 0
    for x, y in points.items():
        for other in points:
            if other != x:
                y = y * other * pow(other - x, -1, P) % P
        total += y
    return (total % P).to_bytes(16, "big")


def unpack(data, b):
    number = int.from_bytes(data, "little")
    return [number >> (b * i) & (2**b - 1) for i in range(8 * len(data) // b)]


def unmask(participants, bits, cipher_seeds, seed_commitments, sealed, masked):
    """Return the sum of the integers behind `masked` (place to bytes), by the shares of these places."""
    digest = hashlib.sha256(participants).digest()
    _, _, _, _, listed = msgspec.msgpack.decode(participants)
    n = len(listed)
    b = bits + (n - 1).bit_length()
    values = {place: unpack(data, b) for place, data in masked.items()}
    length = len(next(iter(values.values())))
    total = [sum(value[i] for value in values.values()) for i in range(length)]
    for owner in range(n):
        points = {}
        for holder in masked:
            data, *committed = sealed[owner][holder]
            shares = open_share(data, cipher_seeds[holder], listed[owner][2], owner, holder, digest)
            assert [commitment(share) for share in shares] == committed
            points[holder + 1] = int.from_bytes(shares[0 if owner in masked else 1], "big")
        secret = at_zero(points)
        if owner in masked:
            assert commitment(secret) == seed_commitments[owner]
            mask = stream(secret, b"self mask", digest, length, b)
            total = [have - take for have, take in zip(total, mask, strict=True)]
            continue
        private = key(secret, b"mask key")
        for survivor in masked:
            mask = stream(agree(private, listed[survivor][3]), b"pair mask", digest, length, b)
            sign = 1 if owner < survivor else -1
            total = [have + sign * add for have, add in zip(total, mask, strict=True)]
    return [(value + 2 ** (b - 1)) % 2**b - 2 ** (b - 1) for value in total]
