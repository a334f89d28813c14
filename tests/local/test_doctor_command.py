"""The doctor as a command: it works anywhere, with nothing installed."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local import doctor
from local.machine import FAIL, OK, WARN, Found, Machine
from tests.local.machines import environment

ROOT = Path(__file__).resolve().parents[2]


# The command


def test_what_cannot_be_looked_at_is_a_warning(here: Machine) -> None:
    def closed(_: Machine) -> Found:
        raise PermissionError(13, "Permission denied", "/closed")

    [(_, found)] = doctor.examine(here, [doctor.Check("closed", "a closed place", closed)])
    assert found.level == WARN
    assert "Permission denied: '/closed'" in found.seen


def test_the_table_is_readable_without_colour() -> None:
    long = "apt-get install " + "openjdk-17-jre-headless " * 4
    results = [
        (doctor.CHECKS[0], Found(OK, "linux")),
        (doctor.CHECKS[1], Found(FAIL, "no Python", long)),
    ]
    lines = doctor.table(results, 90).splitlines()
    assert lines[0].split() == ["check", "level", "what", "was", "seen", "what", "to", "do"]
    assert max(len(line) for line in lines) <= 90
    assert lines[3].startswith("python  FAIL   no Python")
    assert "\x1b" not in "".join(lines)
    assert doctor.verdict(results) == "1 failed: python."


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The parts of a project that the doctor reads, without an environment."""
    root = tmp_path / "copy"
    shutil.copytree(ROOT / "local", root / "local", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", root / "conf")
    for name in ("requirements.txt", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, root / name)
    return root


def run(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command on a Python that has no package at all."""
    command = [sys.executable, "-S", "-m", "local.doctor", *arguments]
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("RANKMILL_", "MLFLOW_"))}
    wide = {"COLUMNS": "400"}  # however long the temporary folder's path is, no cell is folded
    return subprocess.run(
        command, cwd=root, env={**kept, **wide, **environ}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def levels(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(row) == {"check", "looks_at", "level", "seen", "remedy"} for row in found)
    return {row["check"]: row["level"] for row in found}


def test_the_command_works_before_set_up(copy: Path) -> None:
    done = run(copy, "--json")
    assert done.stderr == ""
    found = levels(done)
    assert list(found) == [check.name for check in doctor.CHECKS]
    assert found["packages"] == OK
    assert done.returncode == (FAIL in found.values())
    assert not (copy / ".rankmill").exists()
    assert not (copy / ".venv").exists()


def test_the_command_sees_an_environment(copy: Path) -> None:
    environment(Machine(root=copy), numpy="1.26.4")
    shown = run(copy, "--only", "packages", "--only", "spark packages")
    assert shown.returncode == 1
    assert "numpy 1.26.4 (wanted: 2.4.6)" in " ".join(shown.stdout.split())
    assert "1 failed: packages." in shown.stdout
    assert run(copy, "--only", "spark packages").returncode == 0


def test_warnings_do_not_fail(copy: Path) -> None:
    done = run(copy, "--only", "settings", SPARK_HOME="/opt/spark")
    assert done.returncode == 0
    assert "WARN" in done.stdout
    done = run(copy, "--only", "variables", RANKMILL_WAREHUOSE="/x")
    assert done.returncode == 1
    assert "RANKMILL_WAREHOUSE?" in done.stdout


def test_help_has_examples_and_make_runs_it(copy: Path) -> None:
    assert "make doctor ARGS=--json" in run(copy, "--help").stdout
    done = subprocess.run(
        ["/usr/bin/env", "make", "-s", "doctor", "ARGS=--only cores", f"PYTHON={sys.executable}"],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^cores +(ok|WARN)", done.stdout, re.MULTILINE)


def test_the_doctor_needs_nothing_installed() -> None:
    """What it imports, however far, is the standard library and local's own files."""
    todo, seen = ["doctor"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse((ROOT / "local" / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for module in names:
                package, _, part = module.partition(".")
                assert package == "local" or package in sys.stdlib_module_names, (name, module)
                todo += [part] if package == "local" else []
    assert {"setup", "machine", "ports", "variables", "installed"} <= seen
