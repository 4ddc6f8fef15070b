"""The pytest fixtures; pytest finds them by the entry point of the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ciphermq.testing import Broker


@pytest.fixture
def ciphermq_broker() -> Iterator[Broker]:
    """A broker for one test, on a free port, in memory."""
    with Broker() as broker:
        yield broker


@pytest.fixture
def ciphermq_durable_broker(tmp_path: Path) -> Iterator[Broker]:
    """The same with a data directory: after `restart`, or `kill` and `start`, everything is there again."""
    with Broker(data_dir=tmp_path / "ciphermq") as broker:
        yield broker
