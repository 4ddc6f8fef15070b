"""Makes tests/vectors/envelope-v2/*.json with `cryptography`, see oracle.py.

    python tests/interop/make_vectors_v2.py

Keys come from fixed seeds and stay; the random numbers of HPKE and of the payload come from OpenSSL, so every run makes other envelopes.
Nothing of our own implementation takes part.
"""

import base64
import functools
import hashlib
import json
import pathlib

import cryptography
import oracle
from oracle import COMPRESSED, PADDED, PART, Key, b64, header, named, pad, seal, source, write, zstd_frame

FOLDER = pathlib.Path(__file__).parent.parent / "vectors" / "envelope-v2"
HEAD = {"format": "ciphermq-envelope-vectors-2", "made_with": f"cryptography {cryptography.__version__}, tests/interop/make_vectors_v2.py"}
SAMPLE = b"This is a test hybrid message."
CONTEXT = {"exchange": "orders", "routing_key": "eu.new", "content_type": "text/plain"}
KINDS = {"2r": "rsa", "2x": "x25519", "2pq": "xwing"}


def expand(size):
    return bytes(i % 251 for i in range(size))


@functools.lru_cache(maxsize=None)
def key(name):
    kind = name.split("-")[0]
    return Key(kind, source(name) if kind == "rsa" else source(name)(32))


KEYS = [f"{kind}-{which}" for kind in KINDS.values() for which in "abc"]
SENDERS = ["ed25519-alice", "ed25519-bob", "ed25519-mallory"]
ALICE, BOB, MALLORY = SENDERS
KNOWN = {"require": True, "known": [ALICE, BOB]}
ANY = {"require": False, "known": [ALICE, BOB]}


class Vectors:
    def __init__(self):
        self.cases = []

    def add(self, name, result, keys, members, comment="", **more):
        assert all(case["id"] != name for case in self.cases), name
        text = members if isinstance(members, str) else write(members)
        case = {"id": name, "result": result, "keys": keys, "envelope": text, **more}
        self.cases.append({**case, "comment": comment} if comment else case)

    def opens(self, name, keys, members, plaintext=SAMPLE, result="valid", comment="", **more):
        self.add(name, result, keys, members, comment, plaintext={"b64": b64(plaintext)}, **more)

    def fails(self, name, expect, keys, members, comment="", **more):
        self.add(name, "invalid", keys, members, comment, expect=expect, **more)


def make(suite, name, text=SAMPLE, recipients="a", signer=None, **fields):
    to = [key(f"{KINDS[suite]}-{which}") for which in recipients]
    return seal(text, to, name, identity=key(signer) if signer else None, **fields)


def own(suite, which="a"):
    return [f"{KINDS[suite]}-{which}"]


def valid(v):
    texts = {"empty": b"", "one-byte": b"a", "sample": SAMPLE, "nul-inside": b"before\0after", "utf-8": "Grüße, 世界, 🚀".encode(),
             "every-byte": bytes(range(256)), "kib": expand(1024)}
    for suite in KINDS:
        for name, text in texts.items():
            v.opens(f"{suite}-{name}", own(suite), make(suite, f"{suite}-{name}", text), text, opened={"suite": suite, "sender": None})
        name = f"{suite}-context"
        told = {"suite": suite, "context": list(CONTEXT.values()), "sent_ms": oracle.STARTED_MS + 17, "number": 41,
                "session": bytes(range(16)).hex(), "part": None}
        v.opens(name, own(suite), make(suite, name, number=41, session=bytes(range(16)), **CONTEXT), opened=told, delivered=["orders", "eu.new"])
        name = f"{suite}-signed"
        alice = named(key(ALICE).kid)
        members = make(suite, name, signer=ALICE)
        v.opens(name, own(suite), members, senders=KNOWN, opened={"sender": alice}, comment="one recipient: the session is signed")
        v.opens(f"{suite}-signature-not-looked-at", own(suite), {**members, "sig": bytes(64)}, opened={"sender": None})
        for which in "abc":
            name = f"{suite}-three-recipients-{which}"
            v.opens(name, own(suite, which), make(suite, name, recipients="abc"), opened={"sender": None})
        name = f"{suite}-three-recipients-signed"
        v.opens(name, own(suite, "b"), make(suite, name, recipients="abc", signer=ALICE), senders=KNOWN, opened={"sender": alice},
                comment="several recipients: the message is signed")
    name = "two-keys-of-the-opener"
    v.opens(name, own("2x", "b") + own("2r") + own("2x"), make("2x", name), comment="the header names the key: nothing is tried")
    sealed = make("2pq", "sig-in-front", recipients="ab", signer=ALICE)
    order = ["sig", "ciphertext", "wraps", "hdr", "suite", "v", "tag", "nonce", "enc_session_key", "message_id"]
    v.opens("reversed-order", own("2pq"), {name: sealed[name] for name in order}, senders=KNOWN)
    plain = make("2x", "form")
    v.opens("indented", own("2x"), write(plain, indent=2, separators=None))
    v.opens("extra-members", own("2x"), {**plain, "x": {"v": 1}, "sent_time": "2026"})
    v.opens("escaped", own("2x"), write(plain).replace("/", "\\/").replace('"suite"', '"su\\u0069te"'))
    v.opens("longest-texts", own("2x"), make("2x", "i" * 255, exchange="e" * 255, routing_key="r" * 255, content_type="c" * 255))
    v.opens("non-ascii-texts", own("2x"), make("2x", "größe-№17", exchange="заказы", routing_key="eu.*"),
            opened={"context": ["заказы", "eu.*", ""]})
    many = [Key("x25519", source(f"many-{n}")(32)) for n in range(63)]
    v.opens("64-recipients", own("2x"), seal(SAMPLE, [key("x25519-a"), *many], "64-recipients"))


def valid_options(v):
    for size in (0, 1, 30, 100, 1000):
        name = f"padded-{size}"
        v.opens(name, own("2x"), make("2x", name, pad(expand(size)), flags=PADDED), expand(size))
    for name, text in {"padded-mark-inside": b"a\x80\0\0\x80", "padded-zeros": bytes(9)}.items():
        v.opens(name, own("2x"), make("2x", name, pad(text), flags=PADDED), text)
    v.opens("padded-otherwise", own("2x"), make("2x", "padded-otherwise", b"text\x80" + bytes(100), flags=PADDED), b"text",
            result="acceptable", comment="a length that is none of the scheme's")
    frame = zstd_frame(b"stored, then ", (b"a", 5000))
    v.opens("compressed", own("2x"), make("2x", "compressed", frame, flags=COMPRESSED), b"stored, then " + b"a" * 5000)
    v.opens("compressed-and-padded", own("2pq"), make("2pq", "compressed-and-padded", pad(frame), flags=COMPRESSED | PADDED),
            b"stored, then " + b"a" * 5000)
    for name, who, found in [("signed-by-an-unknown", MALLORY, ["unknown", named(key(MALLORY).kid)]), ("unsigned-allowed", None, None)]:
        v.opens(name, own("2x"), make("2x", name, signer=who), senders=ANY, opened={"sender": found})
    for passed in (0, oracle.LIFETIME_MS):
        name = f"signed-at-{passed}-of-its-session"
        v.opens(name, own("2x"), make("2x", name, signer=ALICE, sent_ms=oracle.STARTED_MS + passed), senders=KNOWN)
    v.opens("unsigned-outside-of-its-session", own("2x"), make("2x", "unsigned-outside-of-its-session", sent_ms=1), result="acceptable",
            comment="nobody signed for the time of the session")
    bound = make("2x", "elsewhere", **CONTEXT)
    v.fails("elsewhere", "misdirected", own("2x"), bound, delivered=["orders", "us.new"])
    v.fails("elsewhere-exchange", "misdirected", own("2x"), bound, delivered=["refunds", "eu.new"])
    v.opens("bound-to-nothing", own("2x"), make("2x", "bound-to-nothing"), delivered=["orders", "us.new"])


def flip(data, bit):
    data = bytearray(data)
    data[bit // 8] ^= 1 << (bit % 8)
    return bytes(data)


def tampered(v):
    for suite in KINDS:
        good, other = make(suite, f"{suite}-good"), make(suite, f"{suite}-good")
        for member in ("enc_session_key", "ciphertext"):
            for bit in (0, len(good[member]) * 4 + 3, len(good[member]) * 8 - 1):
                v.fails(f"{suite}-flip-{member}-{bit}", "decrypt", own(suite), {**good, member: flip(good[member], bit)})
            v.fails(f"{suite}-swapped-{member}", "decrypt", own(suite), {**good, member: other[member]})
        v.fails(f"{suite}-swapped-hdr", "decrypt", own(suite), {**good, "hdr": other["hdr"]})
        v.fails(f"{suite}-another-key", "decrypt", own(suite, "b"), good)
        for which in [kind for kind in KINDS if kind != suite]:
            v.fails(f"{suite}-key-of-{which}", "decrypt", own(which), good)
        for label in (b"", b"cipher/1", b"cipher/2\0"):
            name = f"{suite}-info-{label.hex()}"
            v.fails(name, "decrypt", own(suite), make(suite, name, label=label))
        for size in (0, 16, 31, 33):
            name = f"{suite}-content-key-of-{size}"
            wrap = key(own(suite)[0]).wrap(bytes(size))
            expect = "decrypt" if suite == "2r" else "malformed:enc_session_key"
            v.fails(name, expect, own(suite), {**good, "enc_session_key": wrap})
        wrap = good["enc_session_key"]
        for name, spoilt in {"shorter": wrap[:-1], "longer": wrap + b"\0", "empty": b"", "zero": bytes(len(wrap)), "ones": b"\xff" * len(wrap)}.items():
            same = len(spoilt) == len(wrap) or suite == "2r" and name == "longer"
            v.fails(f"{suite}-wrap-{name}", "decrypt" if same else "malformed:enc_session_key", own(suite), {**good, "enc_session_key": spoilt})


def tampered_header(v):
    """The payload is bound to every field: another value of any does not open, though the rest is untouched."""
    kid = key("x25519-a").kid
    fields = {"number": 7, "session": bytes(range(16)), "message_id": "m", **CONTEXT}
    content_key = hashlib.sha256(b"content key").digest()
    good = seal(SAMPLE, [key("x25519-a")], "m", content_key=content_key, **{k: x for k, x in fields.items() if k != "message_id"})
    changes = {"sent_ms": oracle.STARTED_MS, "session": bytes(16), "number": 8, "started_ms": 0, "lifetime_ms": 1, "exchange": "refunds",
               "routing_key": "us", "content_type": "", "skid": key(ALICE).kid, "message_id": "n", "flags": PADDED}
    for name, value in changes.items():
        hdr = header("2x", [kid], **{**fields, name: value})
        v.fails(f"header-another-{name}", "decrypt", own("2x"), {**good, "hdr": hdr, "message_id": "n" if name == "message_id" else "m"})
    v.fails("header-part-added", "decrypt", own("2x"), {**good, "hdr": header("2x", [kid], part=(bytes(16), 0, 1, 30), **fields)})
    more = sorted([kid, key("x25519-b").kid])
    wraps = [good["enc_session_key"]] * 2
    v.fails("header-recipient-added", "decrypt", own("2x"),
            {**good, "hdr": header("2x", more, **fields), "enc_session_key": wraps[0], "wraps": wraps[1:]})
    three = make("2x", "recipients-cut", recipients="abc")
    kids = sorted(key(f"x25519-{which}").kid for which in "abc")
    names = {key(name).kid: name for name in KEYS}
    cut = header("2x", kids[:2], "recipients-cut", session=three["hdr"][11:27])
    v.fails("recipient-cut", "decrypt", [names[kids[0]]], {**three, "hdr": cut, "wraps": three["wraps"][:1]})
    v.fails("wraps-exchanged", "decrypt", [names[kids[1]]], {**three, "wraps": three["wraps"][::-1]})
    session = good["hdr"][11:27]
    # As if its sender had used the weaker suite: the same key, the same text, another name for it.
    for suite, wrong in [("2x", "2r"), ("2x", "2pq"), ("2pq", "2x"), ("2r", "2x")]:
        name = f"downgrade-{suite}-to-{wrong}"
        sealed = make(suite, name)
        hdr = header(wrong, [key(own(suite)[0]).kid], name, session=session)
        v.fails(name, "decrypt", own(suite), {**sealed, "suite": wrong, "hdr": hdr}, comment="the key is not one of that suite")
        v.fails(f"{name}-by-name", "malformed:suite", own(suite), {**sealed, "suite": wrong})
    bare = {name: good[name] for name in ("message_id", "enc_session_key", "nonce", "tag", "ciphertext")}
    v.fails("downgrade-to-suite-1", "unsupported", own("2x"), bare, comment="80 bytes are a sealed box of CipherMQ 1.3 and later")
    for name, value in {"version-3": 3, "version-0": 0, "version-huge": 2**64 - 1}.items():
        v.fails(name, "unsupported", own("2x"), {**good, "v": value})
    for at, byte, expect in [(0, 1, "unsupported"), (0, 3, "unsupported"), (1, 0, "unsupported"), (1, 4, "unsupported"), (2, 8, "unsupported"),
                             (2, 128, "unsupported"), (2, PART, "malformed:hdr")]:
        hdr = bytearray(good["hdr"])
        hdr[at] = byte
        v.fails(f"header-byte-{at}-{byte}", expect, own("2x"), {**good, "hdr": bytes(hdr)})
    kids = [key("x25519-a").kid, key("x25519-b").kid]
    longer = {name: "x" * 256 for name in ("exchange", "routing_key", "content_type")}
    shapes = {
        "cut": good["hdr"][:-1], "cut-to-50": good["hdr"][:50], "empty": b"", "longer": good["hdr"] + b"\0",
        "no-recipient": header("2x", [], **fields), "recipient-twice": header("2x", [kid, kid], **fields),
        "recipients-descending": header("2x", sorted(kids)[::-1], **fields), "half-a-kid": header("2x", [kid[:16]], **fields),
        "skid-of-31": header("2x", [kid], **{**fields, "skid": bytes(31)}), "not-utf-8": header("2x", [kid], **{**fields, "exchange": b"\xff"}),
        "65-recipients": header("2x", sorted(bytes([n]) * 32 for n in range(65)), **fields), "oversized": good["hdr"] + bytes(4096),
        "length-over-all": good["hdr"][:51] + b"\xff\xff\xff\xff" + good["hdr"][55:],
        "part-behind-the-last": header("2x", [kid], part=(bytes(16), 3, 3, 30), **fields),
        **{f"{name}-of-256": header("2x", [kid], **{**fields, name: text}) for name, text in longer.items()},
    }
    for name, hdr in shapes.items():
        v.fails(f"header-{name}", "malformed:hdr", own("2x"), {**good, "hdr": hdr})


def payloads(v):
    """What was done to chunks: none is missing, doubled or moved without notice."""
    good, short = make("2x", "chunks", expand(16384 + 100)), make("2x", "chunks")
    prefix, a, b = good["ciphertext"][:56], good["ciphertext"][56:56 + 16400], good["ciphertext"][56 + 16400:]
    for name, chunks in {"swapped": b + a, "doubled": a + a + b, "first-left-out": b, "last-left-out": a}.items():
        v.fails(f"payload-chunk-{name}", "decrypt", own("2x"), {**good, "ciphertext": prefix + chunks})
    payload = short["ciphertext"]
    shapes = {"cut": payload[:-10], "one-byte-cut": payload[:-1], "one-byte-more": payload + b"\0", "tag-cut": payload[:-16],
              "nothing-behind": payload[:56], "prefix-cut": payload[:55], "empty": b"", "salt-of-zeros": bytes(24) + payload[24:],
              "commitment-of-zeros": payload[:24] + bytes(32) + payload[56:]}
    for name, spoilt in shapes.items():
        v.fails(f"payload-{name}", "decrypt", own("2x"), {**short, "ciphertext": spoilt})
    kid = [key("x25519-a").kid]
    for name, bound in {"nothing": b"", "another-header": header("2x", kid, "other"), "a-cut-header": header("2x", kid, "m")[:-1]}.items():
        name = f"payload-bound-to-{name}"
        v.fails(name, "decrypt", own("2x"), make("2x", name, bound=bound))
    full = make("2x", "full-chunk", expand(16384))
    v.fails("payload-without-its-empty-chunk", "decrypt", own("2x"), {**full, "ciphertext": full["ciphertext"][:-16]},
            comment="16,384 bytes end with an empty chunk: without it more could follow")
    for name, text in {"no-mark": b"text", "zeros": bytes(8), "empty": b"", "mark-not-last": b"\x80\0\1"}.items():
        v.fails(f"padding-{name}", "malformed:ciphertext", own("2x"), make("2x", f"padding-{name}", text, flags=PADDED))
    frame = zstd_frame(b"text")
    frames = {"none": b"text", "cut": frame[:-1], "two": frame + frame, "something-behind": frame + b"x", "empty": b"",
              "reserved-block": frame[:6] + bytes([frame[6] | 6]) + frame[7:]}
    for name, text in frames.items():
        v.fails(f"compressed-{name}", "malformed:ciphertext", own("2x"), make("2x", f"compressed-{name}", text, flags=COMPRESSED))
    bomb = zstd_frame(*[(b"a", 128 << 10)] * 20)
    v.fails("compressed-bomb", "too_large", own("2x"), make("2x", "compressed-bomb", bomb, flags=COMPRESSED),
            comment="86 bytes that would become 2.5 MiB")


def signatures(v):
    for suite, recipients in [("2x", "a"), ("2pq", "ab"), ("2r", "abc")]:
        form = "session" if recipients == "a" else "message"
        good, again = (make(suite, f"{form}-{suite}", signer=ALICE, recipients=recipients) for _ in range(2))
        sig = good["sig"]
        spoilt = {"flipped": flip(sig, 300), "of-another-message": again["sig"], "zeros": bytes(64)}
        # S + L, the second form of the same signature: what a lenient check takes.
        order = 2**252 + 27742317777372353535851937790883648493
        spoilt["second-form"] = sig[:32] + (int.from_bytes(sig[32:], "little") + order).to_bytes(32, "little")
        by_mallory = make(suite, f"{form}-{suite}", signer=MALLORY, recipients=recipients)
        spoilt["of-another-sender"] = by_mallory["sig"]
        for name, value in spoilt.items():
            v.fails(f"{form}-{suite}-signature-{name}", "decrypt", own(suite), {**good, "sig": value}, senders=KNOWN)
        v.fails(f"{form}-{suite}-by-a-stranger", "untrusted", own(suite), by_mallory, senders=KNOWN)
        unsigned = make(suite, f"{form}-{suite}", recipients=recipients)
        v.fails(f"{form}-{suite}-unsigned", "untrusted", own(suite), unsigned, senders=KNOWN)
        stripped = {name: value for name, value in good.items() if name != "sig"}
        v.fails(f"{form}-{suite}-signature-stripped", "malformed:sig", own(suite), stripped, senders=ANY,
                comment="the header names a sender: not to be taken for unsigned")
    for passed in (-1, oracle.LIFETIME_MS + 1):
        name = f"signed-at-{passed}-of-its-session"
        v.fails(name, "decrypt", own("2x"), make("2x", name, signer=ALICE, sent_ms=oracle.STARTED_MS + passed), senders=KNOWN)
    # One recipient of three knows the content key, and seals anew in the sender's name.
    content_key = hashlib.sha256(b"shared content key").digest()
    fields = {"session": bytes(range(16)), "content_key": content_key}
    good = make("2x", "forged-by-a-recipient", recipients="ab", signer=ALICE, **fields)
    wraps = [good["enc_session_key"], *good["wraps"]]
    forged = make("2x", "forged-by-a-recipient", b"pay twice", recipients="ab", wraps=wraps, skid=key(ALICE).kid, **fields)
    v.fails("forged-by-a-recipient", "decrypt", own("2x"), {**forged, "sig": good["sig"]}, senders=KNOWN)
    good = make("2x", "sig", signer=ALICE)
    for name, value in {"of-63": good["sig"][:63], "of-65": good["sig"] + b"\0", "empty": b""}.items():
        v.fails(f"signature-{name}", "malformed:sig", own("2x"), {**good, "sig": value}, senders=KNOWN)


def shapes(v):
    good = make("2x", "shape", recipients="ab", signer=ALICE)
    text = write(good)
    for member in ("message_id", "enc_session_key", "nonce", "tag", "suite", "hdr", "ciphertext"):
        cut = {name: value for name, value in good.items() if name != member}
        v.fails(f"{member}-missing", f"malformed:{member}", own("2x"), cut, senders=KNOWN)
        for kind, wrong in {"null": None, "number": 1, "list": ["a"], "object": {}, "bool": True}.items():
            v.fails(f"{member}-is-{kind}", f"malformed:{member}", own("2x"), {**good, member: wrong}, senders=KNOWN)
    for member in [name for name in good if name != "v"]:
        twice = text[:-1] + "," + write({member: good[member]})[1:]
        v.fails(f"{member}-twice", f"malformed:{member}", own("2x"), twice, senders=KNOWN)
    v.fails("v-twice", "unsupported", own("2x"), text[:-1] + ',"v":2}', senders=KNOWN)
    for member in ("nonce", "tag"):
        v.fails(f"{member}-not-empty", f"malformed:{member}", own("2x"), {**good, member: bytes(16)}, senders=KNOWN)
    for kind, wrong in {"null": None, "number": 1, "text": "a", "numbers": [1], "65": ["a"] * 65, "too-many": [*good["wraps"]] * 2, "none": []}.items():
        v.fails(f"wraps-{kind}", "malformed:wraps", own("2x"), {**good, "wraps": wrong}, senders=KNOWN)
    v.fails("wraps-missing", "malformed:wraps", own("2x"), {k: x for k, x in good.items() if k != "wraps"}, senders=KNOWN)
    v.fails("suite-unknown", "malformed:suite", own("2x"), {**good, "suite": "2z"}, senders=KNOWN)
    v.fails("message-id-another", "malformed:message_id", own("2x"), {**good, "message_id": "another"}, senders=KNOWN)
    for member in ("enc_session_key", "hdr", "ciphertext", "sig"):
        value = b64(good[member])
        url_safe = value.replace("+", "-").replace("/", "_")
        wrong = {"unpadded": value.rstrip("="), "space-inside": value[:8] + " " + value[8:], "newline-at-end": value + "\n",
                 "foreign-character": "*" + value[1:], "more-padding": value + "====", "url-safe": url_safe if url_safe != value else "-_" + value[2:]}
        for name, spoilt in wrong.items():
            if spoilt != value:
                v.fails(f"{member}-{name}", f"malformed:{member}", own("2x"), {**good, member: spoilt}, senders=KNOWN)
    for name, wrong in {"cut": text[:-1], "list": f"[{text}]", "two": text + text, "trailing-comma": text[:-1] + ",}"}.items():
        v.fails(f"text-{name}", "malformed:envelope", own("2x"), wrong, senders=KNOWN)


def large():
    """Envelopes told by what they are made of: the texts are too long to store."""
    for suite in KINDS:
        for size in (16383, 16384, 16385, 1 << 20):
            name = f"{suite}-expanded-{size}"
            content_key = hashlib.sha256(name.encode()).digest()
            members = json.loads(write(make(suite, name, expand(size), content_key=content_key)))
            payload = base64.b64decode(members.pop("ciphertext"))
            yield {"id": name, "result": "valid", "keys": own(suite), "members": members, "content_key_hex": content_key.hex(),
                   "salt_hex": payload[:24].hex(), "ciphertext_sha256": hashlib.sha256(payload).hexdigest(),
                   "plaintext": {"expand": "byte i is i mod 251", "size": size, "sha256": hashlib.sha256(expand(size)).hexdigest()}}


def parts():
    """Messages in parts: delivered whole or not at all."""
    text, file = expand(1000), bytes(range(16, 32))

    def part(index, piece, count=3, whole=1000, secret="parts", name="scan", file=file, number=9, **fields):
        content_key = hashlib.sha256(secret.encode()).digest()
        to = [key("x25519-a")]
        wraps = made.setdefault(secret, [to[0].wrap(content_key)])
        return write(seal(piece, to, f"{name}/{file.hex()}/{index}", content_key=content_key, wraps=wraps, session=bytes(16), number=number,
                          part=(file, index, count, whole), **{**CONTEXT, **fields}))

    made = {}
    a, b, c = part(0, text[:400]), part(1, text[400:800]), part(2, text[800:])
    whole = {"plaintext": {"b64": b64(text)}, "message_id": "scan"}
    yield {"id": "in-order", "result": "valid", "envelopes": [a, b, c], **whole}
    yield {"id": "any-order", "result": "valid", "envelopes": [c, a, b], **whole}
    yield {"id": "repeated", "result": "valid", "envelopes": [a, b, a, b, c], **whole}
    yield {"id": "one-part", "result": "valid", "envelopes": [part(0, b"text", 1, 4)], "plaintext": {"b64": b64(b"text")}, "message_id": "scan"}
    yield {"id": "one-missing", "result": "invalid", "envelopes": [a, c, a], "expect": "incomplete"}
    for name, other in {
        "of-another-key": part(1, text[400:800], secret="other"), "of-another-file": part(1, text[400:800], file=bytes(16)),
    }.items():
        yield {"id": f"part-{name}", "result": "invalid", "envelopes": [a, other, c], "expect": "incomplete"}
    for name, other in {
        "of-another-count": part(1, text[400:800], count=4), "of-another-size": part(1, text[400:800], whole=1001),
        "of-another-id": part(1, text[400:800], name="other"), "too-long": part(1, text[400:]), "of-another-context": part(1, text[400:800], exchange="x"),
        "of-another-number": part(1, text[400:800], number=10),
    }.items():
        yield {"id": f"part-{name}", "result": "invalid", "envelopes": [a, other, c], "expect": "malformed:hdr"}
    yield {"id": "too-short-together", "result": "invalid", "envelopes": [a, b, part(2, text[800:999])], "expect": "malformed:hdr"}


def save(name, content):
    (FOLDER / name).write_text(json.dumps({**HEAD, **content}, indent=1, ensure_ascii=True) + "\n")


def main():
    FOLDER.mkdir(exist_ok=True)
    forms = {name: {"kind": key(name).kind, "pkcs8": key(name).pkcs8, "spki": key(name).spki, "fingerprint": named(key(name).kid)}
             for name in KEYS + SENDERS}
    save("keys.json", {"keys": {name: forms[name] for name in KEYS}, "senders": {name: forms[name] for name in SENDERS}})
    good, bad = Vectors(), Vectors()
    valid(good)
    valid_options(good)
    for group in (tampered, tampered_header, payloads, signatures, shapes):
        group(bad)
    save("valid.json", {"envelopes": [case for case in good.cases if case["result"] != "invalid"]})
    save("invalid.json", {"envelopes": bad.cases + [case for case in good.cases if case["result"] == "invalid"]})
    save("large.json", {"envelopes": list(large())})
    save("parts.json", {"key": "x25519-a", "messages": list(parts())})


if __name__ == "__main__":
    main()
