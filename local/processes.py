"""Processes of the stack: started in groups of their own, remembered in a file, ended by id.

A process is recognised by its id together with the tick at which it started, so that an id which
the system has handed out again is never signalled. What a service started in sessions of its own
(Airflow's tasks, Spark's JVM) is found by the mark that its environment inherited.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

__all__ = [
    "MARK",
    "Process",
    "ProcessFile",
    "alive",
    "group_members",
    "marked",
    "spawn",
    "start_tick",
    "stop_everything",
]

MARK = "RANKMILL_STACK"
"""Environment variable that everything which belongs to one state folder inherits."""

PROC = Path("/proc")

if TYPE_CHECKING:  # `make doctor` comes here on Pythons that cannot evaluate it
    Ticks = dict[int, int | None]
    """{process id: the tick at which it started}."""


@dataclass(frozen=True)
class Process:
    """One started process, the leader of its group.

    ``start`` is the tick since boot at which it began; ``quit`` the signal that ends it in order.
    """

    name: str
    pid: int
    start: int
    quit: int = signal.SIGTERM


class ProcessFile:
    """The processes of one state folder, on disk from the moment each was started."""

    def __init__(self, path: Path, mark: str) -> None:
        self.path = path
        self.mark = mark

    def read(self) -> list[Process]:
        """All that were recorded, running or not; empty after a clean stop."""
        try:
            return [Process(**entry) for entry in json.loads(self.path.read_text())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):
            # The machine went down in the middle of a write: the mark still finds what runs.
            return []

    def write(self, processes: Iterable[Process]) -> None:
        """Replace the list in one step."""
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps([asdict(process) for process in processes]))
        draft.replace(self.path)

    def add(self, process: Process) -> None:
        """Remember one more."""
        self.write([*self.read(), process])

    def forget(self, pid: int) -> None:
        """A step that has ended in order."""
        self.write(process for process in self.read() if process.pid != pid)


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []
    return text.rpartition(")")[2].split()


def start_tick(pid: int) -> int | None:
    """The tick since boot at which ``pid`` began; None when it does not run (or is a zombie)."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def alive(process: Process) -> bool:
    """Whether this very process, not another with its id, is running."""
    return start_tick(process.pid) == process.start


def group_members(group: int) -> list[int]:
    """Ids of the running processes in process group ``group``."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = stat_fields(int(entry.name))
            if fields and fields[0] not in "ZX" and int(fields[2]) == group:
                found.append(int(entry.name))
    return found


def marked(mark: str) -> list[int]:
    """Ids of the running processes, this one excepted, whose environment bears ``mark``."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # gone meanwhile, or somebody else's
            continue
        if wanted in environment.split(b"\0") and start_tick(int(entry.name)) is not None:
            found.append(int(entry.name))
    return found


def spawn(
    name: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path,
    file: ProcessFile,
    user: tuple[int, int] | None = None,
    quit_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start ``command`` in a session of its own, output to ``log``, and remember it in ``file``.

    Args:
        user: (user id, group id) to run as, else this user.
        quit_signal: what ends it in order.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(command),
            env={**env, MARK: file.mark},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
        )
    tick = start_tick(child.pid)
    if tick is not None:
        file.add(Process(name, child.pid, tick, quit_signal))
    return child


def send(pid: int, signum: int) -> None:
    """Signal one process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def end(ticks: Ticks, signum: int, seconds: float) -> Ticks:
    """Send ``signum`` to the processes {id: start tick} and wait; returns those still running."""
    left: Ticks = {pid: tick for pid, tick in ticks.items() if tick is not None}
    deadline = time.monotonic() + seconds
    for pid, tick in left.items():
        if start_tick(pid) == tick:
            send(pid, signum)
    while True:
        left = {pid: tick for pid, tick in left.items() if start_tick(pid) == tick}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def own_members(process: Process, folder: Path) -> Ticks:
    """The group of ``process`` {id: start tick}; when its leader is gone, those in ``folder`` only.

    A group's id is not handed out again while it has members, yet after a restart of the machine it
    may be somebody else's: hence the second look.
    """
    members = {pid: start_tick(pid) for pid in group_members(process.pid)}
    if alive(process):
        return members
    kept: Ticks = {}
    for pid, tick in members.items():
        with contextlib.suppress(OSError):
            if (PROC / str(pid) / "cwd").readlink().is_relative_to(folder):
                kept[pid] = tick
    return kept


def end_groups(processes: Sequence[Process], folder: Path, seconds: float) -> None:
    """Ask the groups of ``processes`` to end in order, wait, then kill what is left of them."""
    everyone: Ticks = {}
    for process in processes:
        members = own_members(process, folder)
        everyone.update(members)
        # A leader with a signal of its own (the database) tells its children itself.
        own_signal = process.quit != signal.SIGTERM and process.pid in members
        for pid in [process.pid] if own_signal else members:
            send(pid, process.quit)
    end(end(everyone, 0, seconds), signal.SIGKILL, 5)
    late = [own_members(process, folder) for process in processes]
    end({pid: tick for members in late for pid, tick in members.items()}, signal.SIGKILL, 5)


def stop_everything(file: ProcessFile, *, last: str = "postgres", seconds: float = 15) -> int:
    """Stop what ``file`` remembers and what bears its mark; the process named ``last`` last.

    Returns:
        How many of the recorded processes were running.
    """
    recorded = file.read()
    count = sum(alive(process) for process in recorded)
    folder = file.path.parent
    final = [process for process in recorded if process.name == last]
    end_groups([process for process in recorded if process.name != last], folder, seconds)
    # Tasks outlive their scheduler in sessions of their own; the database must outlive them.
    spared = {pid for process in final for pid in own_members(process, folder)}
    strays = {pid: start_tick(pid) for pid in marked(file.mark) if pid not in spared}
    end(end(strays, signal.SIGTERM, 5), signal.SIGKILL, 5)
    end_groups(final, folder, seconds)
    strays = {pid: start_tick(pid) for pid in marked(file.mark)}
    end(strays, signal.SIGKILL, 5)
    file.write([])
    return count
