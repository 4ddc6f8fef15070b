"""The pytest fixture `ciphermq_broker`; pytest finds it by the entry point of the package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ciphermq.testing import Broker


@pytest.fixture
def ciphermq_broker() -> Iterator[Broker]:
    """A broker for one test, on a free port."""
    with Broker() as broker:
        yield broker
