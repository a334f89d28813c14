"""What a set-up and a run need of a machine, and what this one has: memory, disk, cores.

Standard library only: ``make setup`` and ``make doctor`` ask before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "FAIL",
    "GIB",
    "OK",
    "WARN",
    "Found",
    "Machine",
    "available_memory",
    "cores",
    "existing",
    "memory",
    "room_for_environment",
    "room_for_packages",
    "room_for_state",
    "room_for_temporary",
    "total_memory",
]

ROOT = Path(__file__).resolve().parent.parent
OK, WARN, FAIL = "ok", "warn", "fail"

GIB = 2**30
LEAST_MEMORY, GOOD_MEMORY = 3 * GIB, 6 * GIB
# A finished .venv takes 2.9 GiB and 68,000 files.
ENVIRONMENT_BYTES, ENVIRONMENT_FILES = 3 * GIB, 70_000
# An update of a finished one unpacks the new packages before the old ones go.
UPDATE_BYTES, UPDATE_FILES = GIB, 10_000
STATE_BYTES = 3 * GIB
TEMPORARY_BYTES = GIB // 2
GOOD_CORES = 2
_UNLIMITED = 2**60  # how version 1 of cgroups writes "no limit"


@dataclass(frozen=True)
class Found:
    """What a check saw: ``level`` is ok, warn or fail; ``remedy`` says what to do about it."""

    level: str
    seen: str
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """What was seen and what to do, as one text."""
        return f"{self.seen}. {self.remedy}" if self.remedy else self.seen


@dataclass(frozen=True)
class Machine:
    """The facts that checks look at; a test replaces those it is about.

    Attributes:
        root: the project.
        environ: the environment variables.
        python: the Python that was asked for, as in ``make PYTHON=...``.
        proc, cgroup: where the system tells of processes and of a container's limits.
        disk_usage, statvfs: of a path, as in ``shutil`` and ``os``.
        platform: as in ``sys.platform``.
    """

    root: Path = ROOT
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    python: str | None = None
    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")
    disk_usage: Callable[[Path], Any] = shutil.disk_usage
    statvfs: Callable[[Path], Any] = os.statvfs
    platform: str = sys.platform

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.root / ".venv"

    @property
    def state(self) -> Path:
        """What every source's run writes lies here."""
        return self.root / ".rankmill"

    @property
    def temporary(self) -> Path:
        """The system's folder for temporary files."""
        return Path(self.environ.get("TMPDIR") or tempfile.gettempdir())

    @property
    def package_cache(self) -> Path:
        """Where uv, or pip, keeps what it has downloaded."""
        home = self.environ.get("HOME") or str(Path.home())
        default = Path(self.environ.get("XDG_CACHE_HOME") or f"{home}/.cache")
        return Path(self.environ.get("UV_CACHE_DIR") or default)


def existing(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next(step for step in (path, *path.parents) if step.exists())


def gib(size: float) -> str:
    """``2.9 GiB``."""
    return f"{size / GIB:.1f} GiB"


def _first_word(path: Path) -> str:
    """The first word of a small file; empty where it cannot be read."""
    try:
        return (path.read_text().split() or [""])[0]
    except OSError:
        return ""


def _cgroup_folders(machine: Machine, controller: str) -> Iterator[Path]:
    """This process's control group and those above it, in both versions of the system.

    A container may not see its own path: then the mount itself is its group.
    """
    try:
        lines = (machine.proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        mount = machine.cgroup / controller if names else machine.cgroup
        for step in (Path(path), *Path(path).parents):
            yield mount / str(step).lstrip("/")


def memory_limits(machine: Machine) -> list[tuple[int, int]]:
    """(limit, still to be had) of each control group that limits this process's memory."""
    found = []
    for folder in _cgroup_folders(machine, "memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = _first_word(folder / limit_name), _first_word(folder / used_name)
            if limit.isdigit() and int(limit) < _UNLIMITED:
                taken = int(used) - _file_cache(folder) if used.isdigit() else 0
                found.append((int(limit), int(limit) - max(0, taken)))
    return found


def _file_cache(folder: Path) -> int:
    """Bytes counted as used that the system gives back when they are wanted."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    values = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(values.get("total_inactive_file") or values.get("inactive_file") or 0)


def _meminfo(machine: Machine) -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    try:
        lines = (machine.proc / "meminfo").read_text().splitlines()
    except OSError:
        return {}
    rows = (line.split() for line in lines)
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) > 1}


def available_memory(machine: Machine | None = None) -> int:
    """Bytes that can be had without swapping, the container's limit included."""
    machine = machine or Machine()
    free = _meminfo(machine).get("MemAvailable", 0)
    return min([free, *(left for _, left in memory_limits(machine))])


def total_memory(machine: Machine | None = None) -> int:
    """Bytes of memory, of the container where it has a limit; 0 where the system does not tell."""
    machine = machine or Machine()
    there = _meminfo(machine).get("MemTotal", 0)
    return min([there, *(limit for limit, _ in memory_limits(machine))])


def memory(machine: Machine) -> Found:
    """Memory that is available against what Spark, Airflow and MLflow take together."""
    facts = _meminfo(machine)
    if not facts:
        return Found(WARN, "the system does not tell how much memory there is", _MEMORY_NEEDED)
    limits = [limit for limit, _ in memory_limits(machine)]
    free = available_memory(machine)
    swap = facts.get("SwapTotal", 0)
    total = facts.get("MemTotal", 0)
    of = f"the container's {gib(min(limits))}" if limits and min(limits) < total else gib(total)
    seen = f"{gib(free)} of {of} available, {gib(swap) if swap else 'no'} swap"
    if free < LEAST_MEMORY:
        return Found(FAIL, seen, f"{_MEMORY_NEEDED} End other programs, or raise the limit.")
    if free < GOOD_MEMORY:
        return Found(WARN, seen, f"{_MEMORY_NEEDED} A run may be slow.")
    return Found(OK, seen)


_MEMORY_NEEDED = (
    f"Spark, Airflow and MLflow need {LEAST_MEMORY // GIB} GiB together, and "
    f"{GOOD_MEMORY // GIB} to be comfortable."
)


def cores(machine: Machine) -> Found:
    """Cores that this process may use, the container's quota included."""
    count = float(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        count = float(len(os.sched_getaffinity(0)))
    for folder in _cgroup_folders(machine, "cpu"):
        words = _words(folder / "cpu.max")
        if not words:
            words = [*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit():
            count = min(count, int(words[0]) / int(words[1]))
    seen = f"{count:g} core{'' if count == 1 else 's'}"
    if count < GOOD_CORES:
        return Found(WARN, seen, f"The times in README.md were measured on {GOOD_CORES} cores.")
    return Found(OK, seen)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _occupied(folder: Path) -> tuple[int, int]:
    """(bytes on disk, files) of a folder; a file with several names counts once."""
    size = 0
    seen: set[tuple[int, int]] = set()
    for place, _, names in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in names)):  # noqa: PTH118
            try:
                info = os.lstat(path)
            except FileNotFoundError:  # another process is at work there
                continue
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                size += info.st_blocks * 512
    return size, len(seen)


def _environment_needs(machine: Machine) -> tuple[int, int]:
    """(bytes, files) that ``.venv`` still needs."""
    if not machine.venv.exists():
        return ENVIRONMENT_BYTES, ENVIRONMENT_FILES
    size, count = _occupied(machine.venv)
    return max(UPDATE_BYTES, ENVIRONMENT_BYTES - size), max(UPDATE_FILES, ENVIRONMENT_FILES - count)


def room_for_environment(machine: Machine, finished: bool = False) -> Found:
    """Bytes and files that ``.venv`` still needs; nothing once it is ``finished``.

    ``make setup`` refuses with the same sentence.
    """
    needed, files = (0, 0) if finished else _environment_needs(machine)
    found = _room(machine, machine.venv, needed, "the virtual environment")
    place = machine.statvfs(existing(machine.venv))
    if found.level == OK and place.f_files and place.f_favail < files:  # not all count their files
        return Found(
            FAIL,
            f"Only {place.f_favail:,} more files fit on the disk at {machine.venv}; the virtual "
            f"environment needs {files:,}",
            "Delete folders of many small files there, or move the project.",
        )
    return found


def room_for_state(machine: Machine, finished: bool = True) -> Found:
    """Disk for the tables, models and logs of a run, beside what ``.venv`` still needs there."""
    needed, what = STATE_BYTES, "a run"
    if not finished and _same_disk(machine.state, machine.venv):
        needed += _environment_needs(machine)[0]
        what = "a run with its virtual environment"
    hint = " make clean STATE=yes SOURCE=... deletes what a source has made."
    return _room(machine, machine.state, needed, what, hint)


def room_for_temporary(machine: Machine) -> Found:
    """Disk where installers and tests unpack things."""
    hint = " TMPDIR=/another/folder names another place."
    return _room(machine, machine.temporary, TEMPORARY_BYTES, "temporary files", hint)


def room_for_packages(machine: Machine, finished: bool = False) -> Found:
    """Disk for the installer's downloads: a warning, because what it keeps may be there already."""
    shared = _same_disk(machine.package_cache, machine.venv)
    # On one disk uv links what it unpacked, so that the environment costs it nothing more.
    needed = 0 if finished or shared else ENVIRONMENT_BYTES
    hint = " XDG_CACHE_HOME or UV_CACHE_DIR name another place."
    found = _room(machine, machine.package_cache, needed, "the installer's cache", hint)
    return Found(WARN, found.seen, found.remedy) if found.level == FAIL else found


def _same_disk(one: Path, other: Path) -> bool:
    return existing(one).stat().st_dev == existing(other).stat().st_dev


def _room(machine: Machine, path: Path, needed: int, what: str, hint: str = "") -> Found:
    """What is free where ``path`` lies, or will lie, against what is ``needed``."""
    free = machine.disk_usage(existing(path)).free
    if free < needed:
        return Found(
            FAIL,
            f"Only {gib(free)} of disk are free at {path}; {what} needs {gib(needed)}",
            f"Delete what is not needed there, or use a larger disk.{hint}",
        )
    seen = f"{gib(free)} free at {path}"
    return Found(OK, f"{seen}, {gib(needed)} needed" if needed else seen)
