"""A command's output, wall time and memory."""

from __future__ import annotations

import subprocess
import threading
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".rankmill" / "peers"


@dataclass(frozen=True)
class Watched:
    """What a command printed last, its wall seconds, and the most resident memory of its tree."""

    last_line: str
    seconds: float
    peak_mb: float


def watched(command: Sequence[str], env: Mapping[str, str] | None = None) -> Watched:
    """Run ``command`` and watch it and its children; ends the benchmark when it fails."""
    started = time.monotonic()
    job = subprocess.Popen(
        list(command), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(job, peak))
    watcher.start()
    output, errors = job.communicate()
    watcher.join()
    if job.returncode:
        words = f"{output[-2000:]}\n{errors[-4000:]}"
        raise SystemExit(f"{' '.join(command)} ended with {job.returncode}:\n{words}")
    return Watched(output.splitlines()[-1], time.monotonic() - started, peak[0] / 2**20)


def _watch(job: subprocess.Popen[str], peak: list[int]) -> None:
    root = psutil.Process(job.pid)
    while job.poll() is None:
        total = 0
        try:
            for process in (root, *root.children(recursive=True)):
                total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # one of them has just ended; look again
        peak[0] = max(peak[0], total)
        try:
            job.wait(0.1)
        except subprocess.TimeoutExpired:
            continue


def peers_python() -> str:
    """The Python of the peers' own environment, installed at the first call."""
    python = PEERS / "bin" / "python"
    wanted = ROOT / "benchmarks" / "requirements.txt"
    stamp = PEERS / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        venv.create(PEERS, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(wanted)], check=True)
        stamp.write_text(wanted.read_text())
    return str(python)
