"""Stopping: whole groups, what left its group, never somebody else's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.processes import (
    MARK,
    Process,
    ProcessFile,
    alive,
    group_members,
    marked,
    spawn,
    start_tick,
    stop_everything,
)

ROOT = Path(__file__).resolve().parents[2]

# Starts a grandchild in its group, which may be deaf to TERM, and one in a session of its own.
FAMILY = """
import subprocess, sys, time
deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
wait = "import time; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", deaf * (sys.argv[1] == "deaf") + wait])
subprocess.Popen([sys.executable, "-c", wait], start_new_session=True)
print("ready", flush=True)
time.sleep(600)
"""


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether ``condition`` comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass
class Family:
    """A process with its two children."""

    file: ProcessFile
    child: subprocess.Popen[bytes]

    @property
    def parent(self) -> Process:
        (process,) = self.file.read()
        return process

    def over(self) -> bool:
        return self.child.poll() is not None and not marked(self.file.mark)


@pytest.fixture
def family(tmp_path: Path, base_env: dict[str, str]) -> Iterator[Callable[[str], Family]]:
    """Starts a family, "deaf" or "obedient", and leaves none of it behind."""
    file = ProcessFile(tmp_path / "processes.json", f"mark-{os.getpid()}-{tmp_path.name}")
    log = tmp_path / "family.log"
    children = []

    def begin(kind: str) -> Family:
        command = [sys.executable, "-c", FAMILY, kind]
        child = spawn("family", command, env=base_env, log=log, cwd=tmp_path, file=file)
        children.append(child)
        assert eventually(lambda: "ready" in log.read_text() and len(marked(file.mark)) == 3)
        return Family(file, child)

    yield begin
    for pid in marked(file.mark):
        os.kill(pid, signal.SIGKILL)
    for child in children:
        child.wait()


def test_stop_ends_children_grandchildren_and_those_that_left_the_group(
    family: Callable[[str], Family],
) -> None:
    started = family("deaf")
    group = started.parent.pid
    assert alive(started.parent)
    assert len(group_members(group)) == 2
    assert stop_everything(started.file, seconds=0.5) == 1
    assert started.over()
    assert group_members(group) == []
    assert started.file.read() == []


def test_stop_finds_what_a_dead_leader_left_behind(family: Callable[[str], Family]) -> None:
    started = family("deaf")
    started.child.kill()
    started.child.wait()
    assert len(marked(started.file.mark)) == 2
    assert stop_everything(started.file, seconds=0.5) == 0
    assert started.over()


def test_a_process_that_took_over_the_id_is_spared(tmp_path: Path) -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, cwd="/"
    )
    try:
        tick = start_tick(stranger.pid)
        assert tick is not None
        file = ProcessFile(tmp_path / "processes.json", "nobody-bears-this")
        file.write([Process("scheduler", stranger.pid, tick - 1)])
        assert stop_everything(file, seconds=0.2) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


# Holds the watchdog's pipe, as `make run` does, until it is killed.
RUNNER = """
import subprocess, sys, time
watchdog = [sys.executable, "-m", "local.watchdog", *sys.argv[1:]]
print(subprocess.Popen(watchdog, stdin=subprocess.PIPE, start_new_session=True).pid, flush=True)
time.sleep(600)
"""


def test_the_stack_ends_when_its_runner_is_killed(
    family: Callable[[str], Family], tmp_path: Path
) -> None:
    started = family("obedient")
    command = [sys.executable, "-c", RUNNER, str(tmp_path), started.file.mark]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        watchdog = int(runner.stdout.readline())
        assert not started.over()
        runner.kill()
    assert eventually(started.over)
    assert eventually(lambda: start_tick(watchdog) is None)
    assert started.file.read() == []


def test_children_bear_the_mark_and_an_unreadable_file_is_empty(
    tmp_path: Path, base_env: dict[str, str]
) -> None:
    file = ProcessFile(tmp_path / "processes.json", "some-mark")
    log = tmp_path / "out.log"
    child = spawn(
        "printer",
        [sys.executable, "-c", f"import os; print(os.environ[{MARK!r}])"],
        env=base_env,
        log=log,
        cwd=tmp_path,
        file=file,
    )
    assert child.wait() == 0
    assert log.read_text().strip() == "some-mark"
    file.path.write_text('[{"name": "cut o')
    assert file.read() == []
