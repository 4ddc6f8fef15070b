"""Keys and a condition to wait for. The broker comes from the package's own plugin."""

from __future__ import annotations

import time
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
