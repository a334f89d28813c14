"""A command as a process group of its own: followed line by line, and certain to end."""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

__all__ = ["JobProcess"]

# Airflow kills a task's own process 5 s after it was told to end: both together stay below that.
_TERM_SECONDS, _KILL_SECONDS = 3.0, 1.0
_PR_SET_PDEATHSIG = 1


class JobProcess:
    """A command as a process group of its own, whose lines are handed on as they come.

    The group ends when `stop` is called, when the leader has ended (nothing that it started writes
    on), and on Linux the leader also when the calling process dies without a word.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], line: Callable[[str], None]
    ) -> None:
        self._line = line
        self._rest = b""
        self._ended = False
        # stdin is closed: a task's own stdin is its channel to the Airflow supervisor.
        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )
        self._pipe: IO[bytes] = self._process.stdout  # type: ignore[assignment]

    def wait(self) -> int:
        """Hand on every line until the leader ends; return its exit status (-signal if killed)."""
        try:
            self._follow()
            return self._process.wait()
        finally:
            self.stop()
            self._drain()

    def stop(self) -> None:
        """End the whole group: TERM first, KILL for whoever is left."""
        for number, patience in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
            deadline = time.monotonic() + patience
            self._signal(number)
            while not self._ended and time.monotonic() < deadline:
                self._process.poll()
                self._signal(0)
                time.sleep(0.02)

    def _signal(self, number: int) -> None:
        if self._ended:  # its number may belong to somebody else by now
            return
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            self._ended = True

    def _follow(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while self._process.poll() is None:
                if selector.select(timeout=0.2) and not self._read():
                    return

    def _drain(self) -> None:
        """Read what is left in the pipe, without waiting for anyone who still holds it open."""
        with self._pipe as pipe:
            os.set_blocking(pipe.fileno(), False)
            try:
                while self._read():
                    pass
            except BlockingIOError:
                pass
            if self._rest:
                self._read_line(self._rest)
                self._rest = b""

    def _read(self) -> bool:
        chunk = os.read(self._pipe.fileno(), 65536)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._read_line(line)
        return bool(chunk)

    def _read_line(self, line: bytes) -> None:
        self._line(line.decode(errors="replace").rstrip())


def _die_with(parent: int) -> Callable[[], None] | None:
    """What a new process calls first, so that it is killed when ``parent`` dies (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
