"""A job started to be killed: followed until it says a certain line, then struck."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from local.processes import MARK, marked

__all__ = ["Victim", "strike"]


class Victim:
    """A job in a process group of its own, with all that it starts.

    Unlike Airflow's operator nobody here ends the rest of a group whose leader died: what is left
    over must end by itself.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            list(command),
            env={**env, MARK: self.mark, "PYTHONUNBUFFERED": "1"},
            cwd=env["TMPDIR"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with self.process.stdout as pipe:  # type: ignore[union-attr]
            self.lines.extend(line.rstrip() for line in pipe)

    def text(self) -> str:
        """Everything that it has said."""
        return "\n".join(self.lines)

    def wait_for(self, words: str, seconds: float = 120) -> None:
        """Wait until it has said ``words``."""
        deadline = time.monotonic() + seconds
        while words not in self.text():
            running = self.process.poll() is None and time.monotonic() < deadline
            assert running, f"never said {words!r}, but:\n{self.text()}"
            time.sleep(0.01)

    def members(self, program: str = "") -> list[int]:
        """Its running processes, those of one program (``java`` or ``python``) or all."""
        return [pid for pid in marked(self.mark) if program in executable(pid)]

    def driver(self) -> int:
        """The Python process that runs the job: the first one; Spark's workers come from it."""
        return min(self.members("python"))

    def strike(self, whom: str) -> None:
        """Kill the ``jvm``, the ``python`` driver, or the whole ``group``, at once."""
        if whom == "group":
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            [pid] = self.members("java") if whom == "jvm" else [self.driver()]
            os.kill(pid, signal.SIGKILL)

    def pause(self) -> None:
        """Let nothing of it run until ``resume``."""
        self._signal(self.members(), signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._signal(self.members(), signal.SIGCONT)

    def ended(self, seconds: float = 20) -> int:
        """Wait until nothing of it runs any more; its exit status."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None or self.members():
            late = [(pid, executable(pid)) for pid in self.members()]
            assert time.monotonic() < deadline, f"still running: {late}\n{self.text()}"
            time.sleep(0.05)
        self._reader.join()
        return self.process.returncode

    def clear(self) -> None:
        """Kill whatever is left of it."""
        self._signal(self.members(), signal.SIGKILL)
        self.process.wait()
        self._reader.join()

    def _signal(self, pids: Iterable[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def executable(pid: int) -> str:
    """The file name of the program that ``pid`` runs; empty when it has ended."""
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "exe").readlink().name
    return ""


def strike(victim: Victim, way: str) -> str:
    """Kill ``way``, or the group where that does not run yet or any more; whom the kill met."""
    for whom in dict.fromkeys((way, "group")):
        if victim.process.poll() is not None:
            break
        # ValueError: no such process, or its predecessor of the same name, at this moment
        with contextlib.suppress(ValueError, ProcessLookupError):
            victim.strike(whom)
            return whom
    return "nothing"
