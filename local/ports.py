"""Who listens on the ports that the stack likes best, as far as the system tells."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from local.machine import FAIL, OK, WARN, Found, Machine
from local.processes import MARK, ProcessFile
from local.stack import HOST, USUAL_PORTS, LocalError, Stack, choose_ports, is_free

__all__ = ["listeners", "port"]

_LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp


def _sockets(proc: Path, number: int) -> set[str]:
    """The links by which processes hold a socket that listens on port ``number``."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:  # no such protocol here, or no such system
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == number:
                found.add(f"socket:[{fields[9]}]")
    return found


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        return any(str(link.readlink()) in sockets for link in (process / "fd").iterdir())
    except OSError:  # gone meanwhile, or somebody else's
        return False


def listeners(proc: Path, number: int) -> list[int]:
    """Ids of the processes that listen on port ``number``; empty where the system does not tell."""
    sockets = _sockets(proc, number)
    if not sockets:
        return []
    processes = (entry for entry in proc.iterdir() if entry.name.isdigit())
    return sorted(int(entry.name) for entry in processes if _holds(entry, sockets))


def _name(proc: Path, pid: int) -> str:
    """The first words of a process's command, and the folder of the stack that it belongs to."""
    where = ""
    if _mark(proc, pid):
        with contextlib.suppress(OSError):
            where = f" of the stack in {(proc / str(pid) / 'cwd').readlink()}"
    return _command(proc, pid) + where


def _command(proc: Path, pid: int) -> str:
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")[:3]
    except OSError:
        return "a process"
    return b" ".join(words).decode(errors="replace").strip()[:80] or "a process"


def _mark(proc: Path, pid: int) -> str:
    """The mark of a stack that a process bears; empty without one."""
    try:
        text = (proc / str(pid) / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    match = re.search(rf"(?:^|\0){MARK}=([^\0]*)", text)
    return match.group(1) if match else ""


def _stacks(machine: Machine) -> dict[str, Stack]:
    """The stacks of this project, by their marks."""
    folders = machine.state.iterdir() if machine.state.is_dir() else ()
    stacks = (Stack(machine.root, f.name, f, None, f) for f in folders if f.is_dir())
    return {stack.mark: stack for stack in stacks}


def _ours(machine: Machine, pids: list[int]) -> str:
    """Which process of which of our stacks is among ``pids``; empty when none is."""
    stacks = _stacks(machine)
    for pid in pids:
        stack = stacks.get(_mark(machine.proc, pid))
        if stack:
            recorded = ProcessFile(stack.state / "processes.json", stack.mark).read()
            names = [process.name for process in recorded if process.pid == pid]
            name = names[0] if names else _command(machine.proc, pid)
            return f"ours: {name} (pid {pid}) of SOURCE={stack.source}"
    return ""


def port(machine: Machine, service: str, usual: Mapping[str, int] = USUAL_PORTS) -> Found:
    """Whether ``service`` gets its usual port, and who has it otherwise."""
    number = usual[service]
    if is_free(number):
        return Found(OK, f"{number} is free")
    pids = listeners(machine.proc, number)
    ours = _ours(machine, pids)
    if ours:
        return Found(OK, f"{number} is {ours}")
    who = "; ".join(f"{_name(machine.proc, pid)} (pid {pid})" for pid in pids)
    seen = f"{number} is taken by {who or 'a process that the system does not show this user'}"
    try:
        instead = getattr(choose_ports({**usual}), service)
    except LocalError as error:
        return Found(FAIL, seen, f"{error} End some of what listens on {HOST}.")
    return Found(
        WARN,
        seen,
        f"The local stack takes the next free port, now {instead}. In docker/.env "
        f"{service.upper()}_PORT={instead} says so; or end that process.",
    )
