"""Facts of a machine, as the doctor is given them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from local import installed, setup
from local.machine import GIB, Machine

__all__ = ["disk", "environment", "files", "having", "meminfo"]


def meminfo(proc: Path, *, available: int, swap: int = 0) -> None:
    facts = {"MemTotal": 16, "MemAvailable": available, "SwapTotal": swap}
    lines = (f"{name}: {value * 2**20} kB\n" for name, value in facts.items())
    (proc / "meminfo").write_text("".join(lines))


def disk(free: float) -> Any:
    return lambda _: SimpleNamespace(free=int(free * GIB))


def files(free: int, total: int = 10**7) -> Any:
    return lambda _: SimpleNamespace(f_favail=free, f_files=total)


def having(here: Machine, **environ: str) -> Machine:
    return replace(here, environ={**here.environ, **environ})


def environment(here: Machine, **versions: str) -> None:
    """A finished .venv with the pinned packages, or others of ``versions``."""
    site = here.venv / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    for name, version in {**installed.pins(here.root), **versions}.items():
        (site / f"{name.replace('-', '_')}-{version}.dist-info").mkdir()
    (here.venv / setup.STAMP).write_text(setup.fingerprint(here.root))
