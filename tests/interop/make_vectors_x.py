"""Makes tests/vectors/envelope-v1/signed.json: messages of suite 1 with the member `x`, sealed by pycryptodome and `cryptography`.

    python tests/interop/make_vectors_x.py

The same files come out each time. Nothing of our own implementation takes part.
"""

import base64
import json
import pathlib

import Crypto
import cryptography
from Crypto.PublicKey import RSA
from oracle import LIFETIME_MS, STARTED_MS, Key, b64, bounds, extension, named, seal_first, source
from Crypto.Cipher import PKCS1_OAEP

FOLDER = pathlib.Path(__file__).parent.parent / "vectors" / "envelope-v1"
SAMPLE = b"This is a test hybrid message."
CONTEXT = {"exchange": "orders", "routing_key": "eu.new", "content_type": "text/plain"}
KEYS = json.loads((FOLDER / "keys.json").read_text())["keys"]
SENDERS = {name: Key("ed25519", source(name)(32)) for name in ("ed25519-alice", "ed25519-bob", "ed25519-mallory")}
ALICE, BOB, MALLORY = SENDERS.values()
KNOWN = {"require": True, "known": ["ed25519-alice", "ed25519-bob"]}
ANY = {**KNOWN, "require": False}


def make(name, text=SAMPLE, key="rsa2048", identity=ALICE, session="session", **given):
    """The members, decoded, and `x`. Messages of one `session` share its key."""
    public = RSA.import_key(KEYS[key]["spki"])
    session_key = source(f"{session} key {key}")(16)
    wrapped = PKCS1_OAEP.new(public, randfunc=source(f"{session} wrap {key}")).encrypt(session_key)
    members, _ = seal_first(text, public, name, session_key=session_key, wrapped=wrapped, nonce=source(f"nonce {name} {session}")(16))
    kid = base64.urlsafe_b64decode(KEYS[key]["fingerprint"][7:] + "=")
    return members, extension(members, session_key, given.pop("kid", kid), identity, **given)


def write(members, x, **options):
    texts = {name: b64(value) if isinstance(value, bytes) else value for name, value in members.items()}
    return json.dumps({**texts, "x": x}, **{"separators": (",", ":"), **options})


def valid():
    told = {"sent_ms": STARTED_MS + 17, "session": bytes(range(16)).hex()}
    alice = named(ALICE.kid)
    for signed in ("session", "message"):
        for n in range(3):
            name = f"{signed}-{n}"
            opened = {"sender": alice, "number": n, "context": list(CONTEXT.values()), **told}
            yield name, write(*make(name, signed=signed, seq=n, **CONTEXT)), {"senders": KNOWN, "opened": opened, "delivered": ["orders", "eu.new"]}
        name = f"{signed}-without-context"
        yield name, write(*make(name, signed=signed)), {"senders": KNOWN, "opened": {"sender": alice, "context": None, **told}}
        name = f"{signed}-by-an-unknown"
        envelope = write(*make(name, signed=signed, identity=MALLORY))
        yield name, envelope, {"senders": ANY, "opened": {"sender": ["unknown", named(MALLORY.kid)]}}
    yield "not-looked-at", write(*make("not-looked-at")), {"opened": {"sender": None}}
    unsigned, _ = make("unsigned")
    yield "unsigned", write(unsigned, None)[:-len(',"x":null}')] + "}", {"senders": ANY, "opened": {"sender": None}}
    yield "edges-of-its-time", write(*make("edges-of-its-time", ts=STARTED_MS + LIFETIME_MS)), {"senders": KNOWN}
    yield "largest-numbers", write(*make("largest-numbers", seq=2**53 - 1)), {"senders": KNOWN}
    yield "spaced", write(*make("spaced", **CONTEXT), indent=1, separators=None), {"senders": KNOWN}
    members, x = make("reversed", **CONTEXT)
    yield "reversed", write(members, dict(reversed(x.items()))), {"senders": KNOWN}
    members, x = make("in-front")
    yield "in-front", '{"x":' + json.dumps(x) + "," + write(members, x)[1:].rsplit(',"x":', 1)[0] + "}", {"senders": KNOWN}
    names = {"exchange": 'a "b" \\c', "routing_key": "größe", "content_type": "a\tb"}
    members, x = make("escaped-names", **names)
    yield "escaped-names", write(members, x), {"senders": KNOWN, "opened": {"context": list(names.values())}}


def invalid():
    good, x = make("good", **CONTEXT)
    other, other_x = make("other", seq=1, **CONTEXT)
    each, each_x = make("each", signed="message", **CONTEXT)
    for name, value in {"seq": 1, "ts": STARTED_MS + 18, "mac": other_x["mac"], "ctx": {**x["ctx"], "exchange": "refunds"}}.items():
        yield f"another-{name}", "decrypt", write(good, {**x, name: value})
        yield f"another-{name}-each-signed", "decrypt", write(each, {**each_x, name: value})
    for name, value in {"skid": named(BOB.kid), "kid": KEYS["rsa2048-other"]["fingerprint"], "signed": "message",
                        "session": b64(bounds(started_ms=STARTED_MS - 1)), "sig": b64(bytes(64))}.items():
        yield f"another-{name}", "decrypt", write(good, {**x, name: value})
    yield "signed-session-said-of-a-message", "decrypt", write(each, {**each_x, "signed": "session"})
    for member in ("message_id", "nonce", "tag", "ciphertext"):
        yield f"{member}-of-another", "decrypt", write({**good, member: other[member]}, x)
    yield "x-of-another", "decrypt", write(good, other_x)
    elsewhere, _ = make("good", session="another session", **CONTEXT)
    yield "moved-to-another-session-key", "decrypt", write(elsewhere, x)
    # Whoever carries the message puts his own signature in its place: he does not know the session key.
    members, by_mallory = make("good", identity=MALLORY, **CONTEXT)
    yield "signed-anew-by-a-stranger", "untrusted", write(good, {**by_mallory, "mac": x["mac"]})
    yield "of-a-stranger", "untrusted", write(members, by_mallory)
    yield "signed-by-another", "decrypt", write(*make("signed-by-another", signer=BOB))
    bob = make("good", identity=BOB, **CONTEXT)[1]
    yield "signed-anew-by-a-known-one", "decrypt", write(good, {**bob, "mac": x["mac"]})
    for passed in (-1, LIFETIME_MS + 1):
        yield f"at-{passed}-of-its-session", "decrypt", write(*make(f"at-{passed}", ts=STARTED_MS + passed))
    yield "for-another-recipient", "decrypt", write(*make("for-another", kid=bytes(32)))
    yield "without-x", "untrusted", write(good, None)[:-len(',"x":null}')] + "}"
    yield "x-empty", "malformed:x", write(good, {})
    for name, value in {"null": None, "list": [1], "text": "a", "number": 1}.items():
        yield f"x-is-{name}", "malformed:x", write(good, value)
    for name in x:
        yield f"x-without-{name}", "malformed:x", write(good, {k: value for k, value in x.items() if k != name})
    yield "x-with-more", "malformed:x", write(good, {**x, "y": 1})
    yield "x-of-version-2", "unsupported", write(good, {**x, "v": 2})
    for name in ("session", "sig", "mac"):
        yield f"{name}-cut", f"malformed:x.{name}", write(good, {**x, name: x[name][4:]})
        yield f"{name}-unpadded", f"malformed:x.{name}", write(good, {**x, name: x[name].rstrip("=")})
    yield "signed-otherwise", "malformed:x.signed", write(good, {**x, "signed": "both"})
    for name in ("seq", "ts"):
        yield f"{name}-over-2-53", f"malformed:x.{name}", write(good, {**x, name: 2**53})
    for name in ("exchange", "routing_key", "content_type"):
        yield f"{name}-of-256", f"malformed:x.ctx.{name}", write(good, {**x, "ctx": {**x["ctx"], name: "x" * 256}})
    yield "x-twice", "malformed:x", write(good, x)[:-1] + ',"x":' + json.dumps(x) + "}"


def main():
    cases = [{"id": name, "result": "valid", "keys": ["rsa2048"], "envelope": envelope, "plaintext": {"b64": b64(SAMPLE)}, **more}
             for name, envelope, more in valid()]
    cases += [{"id": name, "result": "invalid", "keys": ["rsa2048"], "envelope": envelope, "expect": expect, "senders": KNOWN}
              for name, expect, envelope in invalid()]
    bound = next(case["envelope"] for case in cases if case["id"] == "session-0")
    cases.append({"id": "misdirected", "result": "invalid", "keys": ["rsa2048"], "envelope": bound, "expect": "misdirected",
                  "senders": KNOWN, "delivered": ["orders", "us.new"]})
    senders = {name: {"kind": key.kind, "pkcs8": key.pkcs8, "spki": key.spki, "fingerprint": named(key.kid)} for name, key in SENDERS.items()}
    made_with = f"pycryptodome {Crypto.__version__}, cryptography {cryptography.__version__}, tests/interop/make_vectors_x.py"
    content = {"format": "ciphermq-envelope-vectors-1", "made_with": made_with, "senders": senders, "envelopes": cases}
    (FOLDER / "signed.json").write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
