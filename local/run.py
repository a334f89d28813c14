"""The commands that run a stack: `run` from nothing to registered models, `start` and `stop`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from local.airflow_api import DagRun
from local.preflight import check_machine
from local.processes import stop_everything
from local.record import holder, only_one
from local.screen import Screen
from local.session import Session, process_file
from local.settings import write_spark_settings
from local.stack import Stack, choose_ports

__all__ = ["Interrupt", "run", "start", "stop"]


class Interrupt(KeyboardInterrupt):
    """Ctrl-C, or a signal to end."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the signals that ask for an end into Interrupt."""

    def handler(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise Interrupt(signal.Signals(signum).name)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def guarded(stack: Stack, screen: Screen) -> Iterator[None]:
    """Stop everything that was started inside, at the end or when this process dies."""
    file = process_file(stack)
    watchdog = subprocess.Popen(
        [sys.executable, "-m", "local.watchdog", str(stack.state), file.mark],
        stdin=subprocess.PIPE,
        cwd=stack.root,
        start_new_session=True,
        text=True,
    )
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        begun = time.monotonic()
        count = stop_everything(file)
        screen.say(f"  stopped {count} processes in {time.monotonic() - begun:.1f} s", "dim")
        watchdog.communicate("done")


def leftovers(stack: Stack, screen: Screen) -> None:
    """Stop what an earlier run or `make start` left running."""
    count = stop_everything(process_file(stack))
    if count:
        screen.say(f"  stopped {count} processes that an earlier run had left")


def open_session(stack: Stack, screen: Screen) -> Session:
    """Check the machine, clear what is left over, choose the ports."""
    check_machine(stack, screen)
    leftovers(stack, screen)
    ports = choose_ports()
    write_spark_settings(stack)
    return Session(stack, screen, ports)


def run(stack: Stack, screen: Screen) -> int:
    """Bring everything up, let Airflow run its hours, show what came of it, serve on a terminal.

    Returns:
        0 when every run succeeded, 1 when one failed, 130 when interrupted before the end.
    """
    title = f"Rankmill · {stack.source} · {stack.config.relative_to(stack.root)}"
    screen.console.print(f"[bold]{title}[/bold]", highlight=False)
    with only_one(stack), interruptible():
        session = open_session(stack, screen)
        finished = False
        failed: list[DagRun] = []
        try:
            with guarded(stack, screen):
                failed = session.watch(session.bring_up()).failed()
                session.finish()
                finished = True
                serve(session, failed)
        except Interrupt as signal_name:
            if not finished:
                screen.say(f"  interrupted ({signal_name})", "yellow")
                return 130
    return 1 if failed else 0


def serve(session: Session, failed: list[DagRun]) -> None:
    """On a terminal, stay up until Ctrl-C; elsewhere return at once."""
    if failed:
        session.screen.say(
            f"\n✘ {len(failed)} of the runs failed; their logs are above.", "bold red"
        )
    if not session.screen.live:
        return
    session.screen.say("\n  Serving. Ctrl-C stops every process.", "green")
    while True:
        session.services.check()
        time.sleep(1)


def start(stack: Stack, screen: Screen) -> int:
    """Bring the stack up and leave it running."""
    with only_one(stack), interruptible():
        session = open_session(stack, screen)
        try:
            session.bring_up()
        except BaseException:
            stop_everything(session.file)
            raise
        session.finish()
        screen.say("\n  Running in the background. make stop ends it.", "green")
    return 0


def stop(stack: Stack, screen: Screen) -> int:
    """Stop what runs of this stack; a `run` that is at work is asked to do so itself."""
    runner = holder(stack)
    if runner:
        os.kill(runner, signal.SIGTERM)
        screen.say(f"  asked the running make run (pid {runner}) to end")
    with only_one(stack, patience=60 if runner else 0):
        screen.say(f"  stopped {stop_everything(process_file(stack))} processes")
    return 0
