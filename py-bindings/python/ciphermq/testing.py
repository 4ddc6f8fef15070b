"""A real broker for tests: inside the process, on a free port of the loopback address.

With the package installed, pytest knows the fixture `ciphermq_broker`:

    def test_flow(ciphermq_broker):
        with Sender(port=ciphermq_broker.port, public_key=public) as sender:
            sender.send("hello")

`ciphermq_durable_broker` is the same with a data directory: what it confirmed survives `restart()`, and `kill()` and `start()`.
Without pytest, `Broker` is a context manager.
"""

from __future__ import annotations

import os
import typing
from types import TracebackType
from typing import Dict, Optional, Type, Union

from ciphermq import _native

__all__ = ["Broker"]


class Broker:
    """The broker, in memory: what it holds is gone when it stops.

    With `data_dir` it keeps everything in that directory, synced before it is confirmed, and has it again after a restart.
    `lease` (seconds) and `max_attempts` are what queues have that do not say otherwise.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        lease: Optional[float] = None,
        max_attempts: Optional[int] = None,
        data_dir: Optional[Union[str, "os.PathLike[str]"]] = None,
    ) -> None:
        self._lease = lease
        self._max_attempts = max_attempts
        self._data_dir = data_dir
        self._core = self._native(port)

    def _native(self, port: int) -> _native.Broker:
        return _native.Broker(
            port=port, lease=self._lease, max_attempts=self._max_attempts, data_dir=self._data_dir
        )

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._core.host

    @property
    def port(self) -> int:
        """Where it listens; the same after a restart."""
        return self._core.port

    @property
    def address(self) -> Dict[str, typing.Any]:
        """`host` and `port`, as arguments: `Sender(**broker.address, public_key=…)`."""
        return {"host": self.host, "port": self.port}

    def stop(self) -> None:
        """Ends as on a signal: connections are told. To be called once or often."""
        self._core.stop()

    def kill(self) -> None:
        """Ends in the middle of what it does: connections break."""
        self._core.kill()

    def start(self) -> None:
        """Starts again on the same port after `stop` or `kill`: empty, or with what is in its `data_dir`."""
        self._core.stop()
        self._core = self._native(self.port)

    def restart(self) -> None:
        """`stop` and `start`."""
        self.stop()
        self.start()

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        exception: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()
