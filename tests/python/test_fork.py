"""What was sealed with before a fork is sealed with on both sides after it: never under the same session key or nonce."""

import base64
import json
import os
import signal
import threading
import time
import traceback
import warnings

import ciphermq
import pytest
from conftest import DEADLINE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

MESSAGES = 300
FORKS = 60
THREADS = 4


@pytest.fixture(scope="module")
def keys():
    return ciphermq.generate_keypair()


class Child:
    """A fork that runs `work`; its end is waited for, and no longer than a test may take."""

    def __init__(self, work):
        with warnings.catch_warnings():
            # That other threads do not come along is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def wait(self):
        end = time.monotonic() + DEADLINE
        while True:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                assert os.waitstatus_to_exitcode(status) == 0, "the child failed, see its traceback"
                return
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                pytest.fail("the child hangs")
            time.sleep(0.002)


def seal_many(public, count=MESSAGES):
    return [ciphermq.seal(f"message {number}", public) for number in range(count)]


def members(envelopes, name):
    return [json.loads(envelope)[name] for envelope in envelopes]


def test_parent_child_and_grandchild_share_neither_session_key_nor_nonce(keys, tmp_path):
    private, public = keys
    before = seal_many(public)
    for envelope in before:
        ciphermq.open_envelope(envelope, private)

    def write(name):
        (tmp_path / name).write_text("\n".join(seal_many(public)))

    def opens_what_was_sealed_before_and_now():
        for envelope in (before[0], before[-1], *seal_many(public, 3)):
            assert ciphermq.open_envelope(envelope, private).startswith(b"message ")

    def grandchild():
        write("grandchild")
        opens_what_was_sealed_before_and_now()

    def child():
        # At once, and again after a fork of its own.
        first = seal_many(public)
        further = Child(grandchild)
        (tmp_path / "child").write_text("\n".join([*first, *seal_many(public)]))
        opens_what_was_sealed_before_and_now()
        further.wait()

    forked = Child(child)
    after = seal_many(public)
    forked.wait()
    sealed = {
        "parent": [*before, *after],
        "child": (tmp_path / "child").read_text().split("\n"),
        "grandchild": (tmp_path / "grandchild").read_text().split("\n"),
    }
    everything = [envelope for envelopes in sealed.values() for envelope in envelopes]
    assert len(everything) == 5 * MESSAGES
    for unique in ("nonce", "message_id", "tag"):
        assert len(set(members(everything, unique))) == len(everything), unique
    sessions = {name: set(members(envelopes, "enc_session_key")) for name, envelopes in sealed.items()}
    assert not sessions["parent"] & sessions["child"]
    assert not sessions["parent"] & sessions["grandchild"]
    assert not sessions["child"] & sessions["grandchild"]
    # Different blocks could hold one key: the same text under the same key and nonce would show, so it is looked into them.
    unwrapped = {name: {session_key(private, block) for block in blocks} for name, blocks in sessions.items()}
    assert len(set.union(*unwrapped.values())) == sum(map(len, unwrapped.values()))
    for envelope in everything:
        assert ciphermq.open_envelope(envelope, private).startswith(b"message ")


def session_key(private, block):
    from Crypto.Cipher import PKCS1_OAEP
    from Crypto.PublicKey import RSA

    return PKCS1_OAEP.new(RSA.import_key(private.to_pem())).decrypt(base64.b64decode(block))


def test_a_fork_in_the_middle_of_sealing_and_opening_hangs_nobody(keys):
    """A fork copies locks as they are. With threads that seal and open all the time some are held in one fork of fifty; what
    happens then for certain is tested in cipher-client/src/crypto/process.rs."""
    private, public = keys
    known = seal_many(public, 20)
    stop = threading.Event()
    failures = []

    def work():
        try:
            while not stop.is_set():
                for envelope in known:
                    ciphermq.open_envelope(envelope, private)
                    ciphermq.seal("x", public)
        except BaseException as failure:
            failures.append(failure)

    def child():
        for envelope in (*known, *seal_many(public, 5)):
            ciphermq.open_envelope(envelope, private)
        bad = json.loads(known[0])
        bad["tag"] = base64.b64encode(bytes(16)).decode()
        for _ in range(3):
            with pytest.raises(ciphermq.DecryptError):
                ciphermq.open_envelope(json.dumps(bad), private)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(FORKS):
            Child(child).wait()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    child()
