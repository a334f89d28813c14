"""Look at this machine and say what would keep Rankmill from running, and what to do about it.

Works with any Python, before and after ``make setup``; changes nothing. The exit status is 0 when
nothing failed (warnings are allowed), else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from local.database import closed_paths, unprivileged
from local.installed import native, packages, spark_twins
from local.machine import (
    FAIL,
    OK,
    WARN,
    Found,
    Machine,
    cores,
    existing,
    memory,
    room_for_environment,
    room_for_packages,
    room_for_state,
    room_for_temporary,
)
from local.ports import port
from local.setup import SetupError, answer, find_java, find_python, ready
from local.stack import HOST, LocalError
from local.variables import settings, unknown_variables, zones

__all__ = ["CHECKS", "Check", "build_parser", "examine", "main", "table"]

TESTED_JAVA = 17
GOOD_OPEN_FILES = 1024
DAY = 86_400
EXAMPLES = """examples:
  make doctor                                   the table of all checks
  make doctor ARGS=--json                       one JSON object a line, for programs
  make doctor ARGS="--only java --only memory"  some checks
  make doctor PYTHON=/opt/python3.11/bin/python the Python that set-up would take
  python3 -m local.doctor                       the same without make
"""


@dataclass(frozen=True)
class Check:
    """One thing that is looked at."""

    name: str
    looks_at: str
    run: Callable[[Machine], Found]


def system(machine: Machine) -> Found:
    """Whether the stack's processes can be watched and ended here."""
    if machine.platform.startswith("linux"):
        return Found(OK, machine.platform)
    remedy = "make run needs Linux; elsewhere use the containers in docker/."
    return Found(FAIL, machine.platform, remedy)


def python(machine: Machine) -> Found:
    """The Python that set-up would take, and whether it can make an environment."""
    try:
        command = find_python(machine.python, path=machine.environ.get("PATH"))
    except SetupError as error:
        return _refused(error)
    inside = machine.venv / "bin" / "python"
    if inside.exists():
        found = answer([str(inside), "-c", "import sys; print(sys.version.split()[0])"])
        if found is None:
            return Found(FAIL, f"{inside} does not run", "make setup builds .venv anew.")
        return Found(OK, f"3.11 at {command}; .venv has {found.strip()}")
    uv = shutil.which("uv", path=machine.environ.get("PATH"))
    if not uv and answer([command, "-c", "import ensurepip, venv"]) is None:
        seen = f"{command} cannot create a virtual environment"
        return Found(FAIL, seen, "Debian and Ubuntu: apt-get install python3.11-venv.")
    return Found(OK, f"3.11 at {command}")


def _refused(error: SetupError) -> Found:
    """A refusal of set-up: its first line is what was seen, the others are the remedy."""
    seen, _, remedy = str(error).partition("\n")
    return Found(FAIL, seen, remedy.replace("\n", " "))


def java(machine: Machine) -> Found:
    """The Java that Spark will use."""
    home = machine.environ.get("JAVA_HOME")
    try:
        command, major = find_java(dict(machine.environ))
    except SetupError as error:
        found = _refused(error)
        if home and not Path(home, "bin", "java").exists():
            nowhere = f"JAVA_HOME={home} points nowhere: there is no bin/java in it"
            return replace(found, seen=nowhere, remedy=_other_java(machine) or found.remedy)
        return found
    seen = f"{major} at {command}{' (JAVA_HOME)' if home else ''}"
    if major != TESTED_JAVA:
        return Found(WARN, seen, f"Spark runs on it; this project is tested on {TESTED_JAVA}.")
    return Found(OK, seen)


def _other_java(machine: Machine) -> str:
    """The advice to unset JAVA_HOME, where PATH has a Java that would do."""
    environ = {name: value for name, value in machine.environ.items() if name != "JAVA_HOME"}
    try:
        command, major = find_java(environ)
    except SetupError:
        return ""
    return f"Unset JAVA_HOME: {command} on PATH is Java {major}."


def environment_room(machine: Machine) -> Found:
    """Disk and files for the virtual environment."""
    return room_for_environment(machine, finished=ready(machine.root))


def state_room(machine: Machine) -> Found:
    """Disk for a run."""
    return room_for_state(machine, finished=ready(machine.root))


def package_room(machine: Machine) -> Found:
    """Disk for the installer's cache."""
    return room_for_packages(machine, finished=ready(machine.root))


def writable(machine: Machine) -> Found:
    """Whether files can be made in the project, its folders and the temporary folder."""
    places = (machine.root, machine.venv, machine.state, machine.temporary, machine.package_cache)
    closed = []
    for folder in dict.fromkeys(existing(place) for place in places):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            closed.append(f"{folder} ({error.strerror})")
    if closed:
        remedy = "Give this user the right to write there: chown or chmod u+w."
        return Found(FAIL, f"cannot write to {', '.join(closed)}", remedy)
    return Found(OK, "project, temporary folder and cache")


def database_user(machine: Machine) -> Found:
    """Whether the user as whom root runs the database may enter the project."""
    try:
        user = unprivileged()
    except LocalError as error:
        return Found(FAIL, str(error))
    if user is None:
        return Found(OK, "PostgreSQL runs as this user")
    closed = closed_paths(machine.root, user)
    if closed:
        paths = " ".join(str(path) for path in closed)
        remedy = f"chmod o+x {paths}, or run make as a user who is not root."
        return Found(FAIL, f"PostgreSQL, started by root, may not enter {paths}", remedy)
    return Found(OK, f"PostgreSQL, started by root, runs as user {user[0]}")


def loopback(machine: Machine, resolve: Callable[..., Any] = socket.getaddrinfo) -> Found:
    """Whether localhost is this machine's own address."""
    del machine
    try:
        rows = resolve("localhost", None, socket.AF_INET)
        addresses = sorted({row[4][0] for row in rows})
    except OSError as error:
        addresses = [f"nothing ({error})"]
    if addresses == [HOST]:
        return Found(OK, f"localhost is {HOST}")
    remedy = f"Add the line '{HOST} localhost' to /etc/hosts."
    return Found(FAIL, f"localhost resolves to {', '.join(addresses)}", remedy)


def open_files(machine: Machine, limit: int | None = None) -> Found:
    """How many files a process may hold open."""
    del machine
    if limit is None:
        import resource  # not on every system

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < GOOD_OPEN_FILES:
        remedy = f"Spark and PostgreSQL may need more: ulimit -n {GOOD_OPEN_FILES * 4}."
        return Found(WARN, f"{limit} at once", remedy)
    return Found(OK, f"{limit:,} at once" if limit >= 0 else "no limit")


def clock(machine: Machine, now: float | None = None) -> Found:
    """Whether the clock is behind the project's own files, where downloads would be refused."""
    made = (machine.root / "requirements.txt").stat().st_mtime
    now = time.time() if now is None else now
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < made - DAY:
        return Found(WARN, f"{shown}, before the project's files were made", "Set the clock.")
    return Found(OK, shown)


CHECKS = (
    Check("system", "operating system", system),
    Check("python", "the Python that set-up takes", python),
    Check("java", "JAVA_HOME, else PATH", java),
    Check("libraries", "system libraries of wheels", native),
    Check("memory", "available memory and the container's limit", memory),
    Check("cores", "cores and the container's quota", cores),
    Check("disk: .venv", "room for the virtual environment", environment_room),
    Check("disk: .rankmill", "room for a run", state_room),
    Check("disk: temporary", "room in TMPDIR", room_for_temporary),
    Check("disk: packages", "room for the installer's cache", package_room),
    Check("folders", "whether files can be made", writable),
    Check("database user", "whom root runs PostgreSQL as", database_user),
    Check("port of Airflow", "who listens there", lambda machine: port(machine, "airflow")),
    Check("port of MLflow", "who listens there", lambda machine: port(machine, "mlflow")),
    Check("loopback", "what localhost is", loopback),
    Check("open files", "the limit of a process", open_files),
    Check("packages", ".venv against requirements.txt", packages),
    Check("spark packages", "pyspark and pyspark-client", spark_twins),
    Check("clock", "the time of day", clock),
    Check("time zones", "the sources' and RANKMILL_TIME_ZONE", zones),
    Check("variables", "RANKMILL_ variables that nobody reads", unknown_variables),
    Check("settings", "values that jobs would refuse", settings),
)


def examine(machine: Machine, checks: Iterable[Check] = CHECKS) -> list[tuple[Check, Found]]:
    """Run every check; one that the system does not let look is a warning."""
    found = []
    for check in checks:
        try:
            found.append((check, check.run(machine)))
        except (OSError, ImportError) as error:
            seen = f"could not be looked at: {error}"
            found.append((check, Found(WARN, seen, f"Look at it yourself: {check.looks_at}.")))
    return found


def table(results: Sequence[tuple[Check, Found]], width: int) -> str:
    """Check, level, what was seen, what to do: plain text, wrapped to ``width``."""
    head = ("check", "level", "what was seen", "what to do")
    rows = [(check.name, f.level.upper() if f.level != OK else OK, f.seen, f.remedy)
            for check, f in results]  # fmt: skip
    first = max(len(row[0]) for row in (head, *rows))
    rest = max(40, width - first - 5 - 3 * 2)
    right = min(max(len(row[3]) for row in (head, *rows)), rest // 2)
    widths = (first, 5, rest - right, right)
    lines = [_row(head, widths), "  ".join("-" * size for size in widths)]
    return "\n".join([*lines, *(_row(row, widths) for row in rows)])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    """One row of the table, over as many lines as its longest cell takes."""
    wrapped = [
        textwrap.wrap(cell, size, break_long_words=False, break_on_hyphens=False) or [""]
        for cell, size in zip(cells, widths)  # noqa: B905
    ]
    count = max(len(lines) for lines in wrapped)
    filled = [lines + [""] * (count - len(lines)) for lines in wrapped]
    return "\n".join(
        "  ".join(part.ljust(size) for part, size in zip(parts, widths)).rstrip()  # noqa: B905
        for parts in zip(*filled)  # noqa: B905
    )


def verdict(results: Sequence[tuple[Check, Found]]) -> str:
    """One sentence on all checks."""
    failed = [check.name for check, found in results if found.level == FAIL]
    warned = [check.name for check, found in results if found.level == WARN]
    if failed:
        return f"{len(failed)} failed: {', '.join(failed)}."
    if warned:
        return f"Nothing failed; worth a look: {', '.join(warned)}."
    return "Everything is fine."


def build_parser() -> argparse.ArgumentParser:
    """The arguments of ``python -m local.doctor``."""
    parser = argparse.ArgumentParser(
        prog="python -m local.doctor",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line and check")
    parser.add_argument(
        "--only",
        action="append",
        choices=[check.name for check in CHECKS],
        metavar="CHECK",
        help="this check alone; may be repeated: " + ", ".join(check.name for check in CHECKS),
    )
    parser.add_argument(
        "--python", default=os.environ.get("PYTHON") or None, help="as make PYTHON=... [PYTHON]"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status 0 when nothing failed, else 1."""
    arguments = build_parser().parse_args(argv)
    chosen = [check for check in CHECKS if check.name in (arguments.only or [check.name])]
    results = examine(Machine(python=arguments.python), chosen)
    if arguments.json:
        for check, found in results:
            print(json.dumps({"check": check.name, "looks_at": check.looks_at, **asdict(found)}))
    else:
        width = shutil.get_terminal_size((120, 24)).columns
        print(f"{table(results, width)}\n\n{verdict(results)}")
    return 1 if any(found.level == FAIL for _, found in results) else 0


if __name__ == "__main__":
    sys.exit(main())
