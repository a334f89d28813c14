"""What ``.venv`` holds against what ``requirements.txt`` asks for, read from outside it."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

from local.machine import FAIL, OK, WARN, Found, Machine
from local.setup import MARKER, NATIVE_HINT, ready

__all__ = ["installed_versions", "native", "packages", "pins", "spark_twins"]

_SHOWN = 4
_TWINS = ("pyspark", "pyspark-client")
_NO_ENVIRONMENT = Found(OK, "there is no .venv yet: make setup builds it")


def _normal(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(root: Path) -> dict[str, str]:
    """The versions that requirements.txt names."""
    lines = (root / "requirements.txt").read_text().splitlines()
    rows = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {_normal(name.partition("[")[0]): version.strip() for name, _, version in rows}


def installed_versions(venv: Path) -> dict[str, str]:
    """The installed versions, without the names of local builds (torch 2.13.0+cpu is 2.13.0)."""
    found = {}
    for folder in venv.glob("lib/python3.*/site-packages/*.dist-info"):
        name, _, version = folder.name[: -len(".dist-info")].rpartition("-")
        found[_normal(name)] = version.partition("+")[0]
    return found


def packages(machine: Machine) -> Found:
    """Packages that are missing or of another version; only where there is a ``.venv``."""
    if not machine.venv.exists():
        return _NO_ENVIRONMENT
    if (machine.venv / MARKER).exists():
        return Found(FAIL, "the last install was cut short", "make setup builds .venv anew.")
    wanted, there = pins(machine.root), installed_versions(machine.venv)
    wrong = [
        f"{name} {there.get(name, 'missing')} (wanted: {version})"
        for name, version in sorted(wanted.items())
        if there.get(name) != version
    ]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        seen = f"{len(wrong)} of {len(wanted)} differ: {', '.join(wrong[:_SHOWN])}{more}"
        return Found(FAIL, seen, "Build it anew: rm -rf .venv, then make setup.")
    if not ready(machine.root):
        return Found(WARN, "set-up has changed since .venv was built", "make setup follows it.")
    return Found(OK, f"all {len(wanted)} as pinned")


def spark_twins(machine: Machine) -> Found:
    """Whether pyspark and pyspark-client are equal: they write the same files."""
    for versions, where in (
        (pins(machine.root), "requirements.txt"),
        (installed_versions(machine.venv), ".venv"),
    ):
        pair = [versions.get(name, "missing") for name in _TWINS]
        if len(set(pair)) > 1:
            both = " and ".join(f"{n} {v}" for n, v in zip(_TWINS, pair))  # noqa: B905
            remedy = "They write the same files, and the last one wins: make the two equal."
            return Found(FAIL, f"{where} has {both}", remedy)
    return Found(OK, f"both {pins(machine.root).get(_TWINS[0])}")


def native(machine: Machine, library: str = "libgomp.so.1") -> Found:
    """The one system library that a wheel expects and a bare system lacks."""
    if not machine.platform.startswith("linux"):
        return Found(OK, f"{library} is looked for on Linux only")
    try:
        ctypes.CDLL(library)
    except OSError:
        return Found(FAIL, f"{library} is not there", f"{NATIVE_HINT}.")
    return Found(OK, f"{library} loads")
