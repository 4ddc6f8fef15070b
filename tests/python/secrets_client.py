"""A program that uses the package with secrets it reads from stdin, so that none stands in its text or its arguments.

Everything a program would show or log goes to stdout and, with the logging on, to the file package.log: the text and repr of
every object and every exception. What was received is not shown.
"""

import copy
import json
import logging
import pickle
import sys
import traceback

import ciphermq

task = json.load(sys.stdin)
logging.basicConfig(filename="package.log", level=1)
address = {"port": task["port"]}
private = ciphermq.PrivateKey.from_pem(task["private_pem"])
stranger = ciphermq.PrivateKey.from_pem(task["other_private_pem"])
public = private.public_key()


def show(*things):
    for thing in things:
        print(str(thing), repr(thing), f"{thing}", flush=True)


def fails(what, work):
    try:
        work()
    except Exception as error:
        print(what, *traceback.TracebackException.from_exception(error, capture_locals=False).format())
        show(error, error.args, vars(error))
        logging.getLogger("program").exception("%s", what)
    else:
        raise SystemExit(f"{what}: did not fail")


def damaged(envelope, member):
    parts = json.loads(envelope)
    first = parts[member][0]
    parts[member] = ("B" if first == "A" else "A") + parts[member][1:]
    return json.dumps(parts)


show(private, public, private.fingerprint)
with ciphermq.Sender(**address, public_key=public) as sender, ciphermq.Receiver(**address, private_key=private) as receiver:
    sender.send(task["texts"][0])
    sender.send_many(task["texts"][1:])
    expected = sorted(task["texts"])
    got = []
    while len(got) < len(expected):
        message = receiver.receive(timeout=20)
        got.append(message.text)
        show(message, message.queue, message.attempt)
        with message:
            pass
    assert sorted(got) == expected
    show(sender, receiver)
    for row in (sender.list_queues(), sender.list_exchanges(), sender.list_bindings(), sender.stats()):
        show(row)

    envelope = ciphermq.seal(task["texts"][0], public)
    show(envelope)
    fails("wrong key", lambda: ciphermq.open_envelope(envelope, stranger))
    for member in ("enc_session_key", "nonce", "tag", "ciphertext"):
        fails(f"altered {member}", lambda: ciphermq.open_envelope(damaged(envelope, member), private))
    fails("plaintext for an envelope", lambda: ciphermq.open_envelope(task["texts"][0], private))
    fails("plaintext in JSON", lambda: ciphermq.open_envelope(json.dumps({"message_id": task["texts"][0]}), private))
    fails("plaintext for a key", lambda: ciphermq.PrivateKey.from_pem(task["texts"][0]))
    fails("damaged key", lambda: ciphermq.PrivateKey.from_pem(task["private_pem"].replace("A", "B")))
    fails("cut key", lambda: ciphermq.PublicKey.from_pem(task["private_pem"]))
    fails("encrypted key", lambda: ciphermq.PrivateKey.from_pem(task["encrypted_pem"]))
    fails("pickled key", lambda: pickle.dumps(private))
    fails("copied key", lambda: copy.deepcopy(private))
    fails("plaintext published", lambda: sender.publish(task["texts"][0]))
    fails("no such queue", lambda: sender.send(task["texts"][0], routing_key="nobody"))
    fails("no text", lambda: sender.send({"text": task["texts"][0]}))
    sender.publish(damaged(ciphermq.seal(task["texts"][0], public), "tag"))
    sender.publish(ciphermq.seal(task["texts"][0], stranger.public_key()))
    for what in ("altered message", "message for another key"):
        fails(what, lambda: receiver.receive(timeout=20))


# --- suite 2, signatures, keysets, the directory

me = ciphermq.Identity.from_pem(task["identity_pem"], passphrase=task["passphrase"])
impostor = ciphermq.Identity.generate()
keyset = ciphermq.Keyset.open(task["keyset"], passphrase=task["passphrase"])
small = ciphermq.PrivateKey.from_pem(task["encrypted_pem"], passphrase=task["passphrase"])
hybrid = ciphermq.PrivateKey.from_pem(task["xwing_pem"], passphrase=task["xwing_passphrase"])
senders = ciphermq.Senders("senders")
senders.add("me", me.sender_key())
place = ciphermq.Context("default_exchange", "default_key", "text/plain")
text, other_text, last_text = task["more_texts"]
show(me, me.sender_key(), keyset, keyset.kids, small, hybrid, senders, place)

for wrong in ({"passphrase": task["wrong_passphrase"]}, {}):
    fails("identity", lambda: ciphermq.Identity.from_pem(task["identity_pem"], **wrong))
    fails("keyset", lambda: ciphermq.Keyset.open(task["keyset"], **wrong))
    fails("small key", lambda: ciphermq.PrivateKey.from_pem(task["encrypted_pem"], **wrong))
    fails("hybrid key", lambda: ciphermq.PrivateKey.from_pem(task["xwing_pem"], **wrong))
fails("identity for a key", lambda: ciphermq.PrivateKey.from_pem(task["identity_pem"], passphrase=task["passphrase"]))
fails("passphrase for a kind", lambda: ciphermq.PrivateKey.generate(task["passphrase"]))
fails("text for a suite", lambda: ciphermq.Sealer(public, suite=text))
fails("text for a context", lambda: ciphermq.Sealer(public, suite="2r").seal("x", context=ciphermq.Context(text * 10)))
for secret in (me, keyset, small, hybrid):
    fails("pickled", lambda: pickle.dumps(secret))

rsa = [public, stranger.public_key()]
wings = [hybrid.public_key(), keyset.public_key()]
for recipients, keys, options in [
    (public, private, {"identity": me}),
    (public, private, {"identity": me, "signing": "message"}),
    (public, private, {"suite": "2r"}),
    (rsa, private, {"identity": me}),
    (small.public_key(), small, {"identity": me, "padding": "padme"}),
    (hybrid.public_key(), hybrid, {"identity": me, "compression": "zstd"}),
    (wings, keyset, {"identity": me, "messages": 1}),
]:
    sealer = ciphermq.Sealer(recipients, **options)
    opener = ciphermq.Opener(keys, senders=senders if "identity" in options else None)
    envelope = sealer.seal(text, context=place)
    opened = opener.open(envelope, delivered=place)
    assert opened.text == text
    show(sealer, opener, opener.stats, opened, opened.context, opened.sender, opened.sequence, opened.uniqueness.hex())
    fails("elsewhere", lambda: opener.open(envelope, delivered=ciphermq.Context("default_exchange", "elsewhere")))
    fails("for another", lambda: ciphermq.Opener(ciphermq.PrivateKey.generate("x25519")).open(envelope))
    for member in ("enc_session_key", "ciphertext", *({"hdr", "sig"} & json.loads(envelope).keys())):
        fails(f"altered {member}", lambda: opener.open(damaged(envelope, member)))
    signed = ciphermq.Opener(keys, senders=senders)
    fails("of an impostor", lambda: signed.open(ciphermq.Sealer(recipients, identity=impostor).seal(text)))
    fails("of nobody", lambda: signed.open(ciphermq.Sealer(recipients).seal(text)))
    fails("text for an envelope", lambda: opener.open(text))
    fails("pickled message", lambda: pickle.dumps(opened))

parts = ciphermq.Sealer(hybrid.public_key(), identity=me).seal_parts(other_text, 50)
collector, opener = ciphermq.PartCollector(), ciphermq.Opener(hybrid, senders=senders)
whole = [collector.add(opener.open(part)) for part in parts][-1]
assert whole.text == other_text
show(collector, whole, *parts[:1])

pins = ciphermq.Pins("pins")
# Not the queue from before: what did not open there is still in it.
sending = {"recipients": hybrid.public_key(), "identity": me, "routing_key": "second"}
receiving = {"private_key": hybrid, "senders": senders, "dedupe": "seen", "queue": "second"}
with ciphermq.Sender(**address, **sending) as sender, ciphermq.Receiver(**address, **receiving) as receiver:
    sender.declare_queue("second")
    sender.bind("default_exchange", "second", "second")
    announced = sender.announce_key("me", hybrid.public_key(), me)
    show(announced, sender.lookup_key("me"), sender.resolve("me", pins), sender.resolve_sender("me", pins), pins)
    fails("announced by an impostor", lambda: sender.announce_key("me", public, impostor))
    lie = ciphermq.Announcement.sign("me", public, impostor)
    fails("announced otherwise", lambda: ciphermq.Pins("pins").take("me", [lie]))
    fails("nobody", lambda: sender.resolve("nobody", pins))
    sender.send(last_text)
    message = receiver.receive(timeout=20)
    assert (message.text, message.sender) == (last_text, me.kid)
    show(sender, receiver, message, message.sender, message.context, message.envelope)
    message.ack()
    sender.publish(ciphermq.Sealer(hybrid.public_key(), identity=impostor).seal(last_text))
    sender.publish(ciphermq.Sealer(hybrid.public_key(), identity=me).seal(last_text, context=ciphermq.Context("elsewhere", "x")))
    sender.publish(damaged(ciphermq.Sealer(hybrid.public_key(), identity=me).seal(last_text), "ciphertext"))
    for what in ("of an impostor", "for elsewhere", "altered"):
        fails(f"received, {what}", lambda: receiver.receive(timeout=20))
me.write_file("identity-copy.pem", passphrase=task["passphrase"])
print("done")
