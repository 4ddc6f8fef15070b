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
print("done")
