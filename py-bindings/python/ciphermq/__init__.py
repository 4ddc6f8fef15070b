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
    Announcement,
    Context,
    Identity,
    Keyset,
    Message,
    Opened,
    Opener,
    PartCollector,
    Pins,
    PrivateKey,
    PublicKey,
    Recipient,
    Sealer,
    SenderKey,
    Senders,
    UnverifiedRecipient,
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
    Incomplete,
    KeyChanged,
    KeyFormatError,
    LeaseLost,
    Misdirected,
    NoRoom,
    OutcomeUnknown,
    PassphraseError,
    ProtocolError,
    Refused,
    Throttled,
    Timeout,
    Untrusted,
)

__all__ = [
    "Announcement",
    "CipherMQError",
    "Closed",
    "ConnectionLost",
    "Context",
    "DecryptError",
    "EnvelopeError",
    "ForkError",
    "Full",
    "Identity",
    "Incomplete",
    "KeyChanged",
    "KeyFormatError",
    "Keyset",
    "LeaseLost",
    "Message",
    "Misdirected",
    "NoRoom",
    "Opened",
    "Opener",
    "OutcomeUnknown",
    "PartCollector",
    "PassphraseError",
    "Pins",
    "PrivateKey",
    "ProtocolError",
    "PublicKey",
    "Receiver",
    "Recipient",
    "Refused",
    "Sealer",
    "Sender",
    "SenderKey",
    "Senders",
    "Throttled",
    "Timeout",
    "Untrusted",
    "UnverifiedRecipient",
    "__version__",
    "generate_keypair",
    "open_envelope",
    "seal",
    "write_keypair",
]
