"""Steps that are commands: run side by side, followed through their logs."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.processes import ProcessFile, spawn
from local.screen import Screen, Step, duration
from local.services import last_lines
from local.stack import LocalError, Stack

__all__ = ["Command", "run_commands", "summary"]


@dataclass(frozen=True)
class Command:
    """A step's title, the name of its log, and its command line."""

    title: str
    name: str
    arguments: tuple[str, ...]


class Running:
    """A command that was started, and the end of its log."""

    def __init__(self, command: Command, child: subprocess.Popen[bytes], log: Path) -> None:
        self.command = command
        self.child = child
        self.log = log
        self.begun = time.monotonic()
        self.position = 0

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.begun

    def new_lines(self) -> list[str]:
        """The job's progress lines, ``[job] message``, since the last call."""
        with self.log.open("rb") as handle:
            handle.seek(self.position)
            block = handle.read()
        whole = block[: block.rfind(b"\n") + 1]
        self.position += len(whole)
        lines = whole.decode(errors="replace").splitlines()
        return [line for line in lines if line.startswith("[") and "] " in line]


def summary(log: Path) -> dict[str, Any]:
    """The JSON object that a job prints last; empty where there is none."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
    return {}


def run_commands(
    commands: Sequence[Command],
    stack: Stack,
    env: Mapping[str, str],
    file: ProcessFile,
    screen: Screen,
    check: Callable[[], None],
) -> list[dict[str, Any]]:
    """Run ``commands`` side by side to their end; each one's summary line.

    Args:
        check: called while they run; raises when a service that they need has ended.

    Raises:
        LocalError: when one fails, with the end of its log.
    """
    started = []
    for command in commands:
        log = stack.logs / f"{command.name}.log"
        log.unlink(missing_ok=True)
        child = spawn(command.name, command.arguments, env=env, log=log, cwd=stack.state, file=file)
        started.append(Running(command, child, log))
    running = list(started)
    with screen.moving(", ".join(command.title for command in commands)) as status:
        latest: dict[str, str] = {}
        while running:
            check()
            for one in list(running):
                ended = one.child.poll() is not None
                for line in one.new_lines():
                    latest[one.command.title] = line
                    if status is None:
                        screen.say(f"    {line}", style="dim")
                if ended:
                    running.remove(one)
                    file.forget(one.child.pid)
                    finish(one, screen)
            if status is not None:
                status.update(" · ".join(moving_text(one, latest) for one in running))
            time.sleep(0.1)
    return [summary(one.log) for one in started]


def moving_text(one: Running, latest: Mapping[str, str]) -> str:
    """Title, time and latest message of a running command."""
    message = latest.get(one.command.title, "").partition("] ")[2]
    shown = f" [dim]{message[:70].replace('[', '(')}[/dim]" if message else ""
    return f"{one.command.title} {duration(one.seconds)}{shown}"


def finish(one: Running, screen: Screen) -> None:
    """Show a command that ended well; raise LocalError for one that did not."""
    status = one.child.returncode
    if status == 0:
        result = summary(one.log)
        screen.done(Step(one.command.title, str(result.get("message", "")), one.seconds))
        return
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    raise LocalError(
        f"{one.command.title} {how} after {duration(one.seconds)}; the end of {one.log}:\n"
        f"{last_lines(one.log)}"
    )
