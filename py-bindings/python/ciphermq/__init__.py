"""End-to-end encrypted messages through a CipherMQ broker.

>>> import ciphermq
>>> private, public = ciphermq.generate_keypair()
>>> ciphermq.open_envelope(ciphermq.seal("the goods are on the dock", public), private)
b'the goods are on the dock'
"""

from ciphermq._native import (
    PrivateKey,
    PublicKey,
    generate_keypair,
    open_envelope,
    seal,
    write_keypair,
)
from ciphermq.errors import (
    CipherMQError,
    Closed,
    ConnectionLost,
    DecryptError,
    EnvelopeError,
    ForkError,
    Full,
    KeyFormatError,
    LeaseLost,
    OutcomeUnknown,
    ProtocolError,
    Refused,
    Throttled,
    Timeout,
)

__all__ = [
    "CipherMQError",
    "Closed",
    "ConnectionLost",
    "DecryptError",
    "EnvelopeError",
    "ForkError",
    "Full",
    "KeyFormatError",
    "LeaseLost",
    "OutcomeUnknown",
    "PrivateKey",
    "ProtocolError",
    "PublicKey",
    "Refused",
    "Throttled",
    "Timeout",
    "generate_keypair",
    "open_envelope",
    "seal",
    "write_keypair",
]
