"""Keys, a condition to wait for, forks. The broker comes from the package's own plugin."""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from typing import Callable, Tuple

import ciphermq
import pytest

Keys = Tuple[ciphermq.PrivateKey, ciphermq.PublicKey]


@pytest.fixture(scope="session")
def keys() -> Keys:
    return ciphermq.generate_keypair()


@pytest.fixture(scope="session")
def other_keys() -> Keys:
    return ciphermq.generate_keypair()


def eventually(condition: Callable[[], bool], within: float = 20.0) -> None:
    """Waits until the condition holds; fails when it never does."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


CHILD_SECONDS = 30.0


class Child:
    """A fork that runs `work`; its end is waited for, and no longer than a test may take."""

    def __init__(self, work: Callable[[], object]) -> None:
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

    def wait(self) -> None:
        deadline = time.monotonic() + CHILD_SECONDS
        while True:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                assert os.waitstatus_to_exitcode(status) == 0, "the child failed, see its traceback"
                return
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                pytest.fail("the child hangs")
            time.sleep(0.002)


def in_child(work: Callable[[], object]) -> None:
    """Runs `work` in a forked child; fails when it raises or hangs."""
    Child(work).wait()
