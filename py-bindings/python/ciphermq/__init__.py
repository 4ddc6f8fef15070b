"""End-to-end encrypted messages through a CipherMQ broker.

>>> import ciphermq
>>> private, public = ciphermq.generate_keypair()
>>> ciphermq.open_envelope(ciphermq.seal("the goods are on the dock", public), private)
b'the goods are on the dock'

`Sender` and `Receiver` block; those of `ciphermq.aio` have the same names for asyncio. `ciphermq.testing` runs a
broker inside the process. What goes wrong is in `ciphermq.errors`. Events go to the logger `ciphermq`, which has no
handlers of its own; its level is looked at when a sender or receiver is made.
"""

from ciphermq._native import (
    Message,
    PrivateKey,
    PublicKey,
    __version__,
    generate_keypair,
    open_envelope,
    seal,
    write_keypair,
)
from ciphermq._sync import Receiver, Sender
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
    "Message",
    "OutcomeUnknown",
    "PrivateKey",
    "ProtocolError",
    "PublicKey",
    "Receiver",
    "Refused",
    "Sender",
    "Throttled",
    "Timeout",
    "__version__",
    "generate_keypair",
    "open_envelope",
    "seal",
    "write_keypair",
]
