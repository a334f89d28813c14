"""Nothing starts with settings that cannot work, or that let everybody in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.machine import Machine
from local.preflight import check_machine
from local.screen import Screen
from local.stack import LocalError, open_stack
from local.startup import refusal
from tests.local.machines import having

ROOT = Path(__file__).resolve().parents[2]
EVERY = "0.0.0.0"  # noqa: S104
SIGNED_IN = ("mlflow", "server", "--app-name", "basic-auth")


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, ""),
        ({"RANKMILL_SPARK_MASTER": "spark://here:7077"}, ""),
        ({"RANKMILL_WAREHUOSE": "x"}, "nobody reads RANKMILL_WAREHUOSE. .* RANKMILL_WAREHOUSE\\?"),
        ({"RANKMILL_QQ": "x"}, "nobody reads RANKMILL_QQ. .* README.md under Settings"),
        ({"RANKMILL_START_HOUR": "2026-11-11T05", "RANKMILL_END_HOUR": "2026-11-11T04"},
         "RANKMILL_START_HOUR comes after RANKMILL_END_HOUR. .*exchange them"),
        ({"RANKMILL_CATALOG_URI": "mysql://c"}, "scheme 'mysql'.* Write it as postgresql"),
    ],
)  # fmt: skip
def test_settings_stop_a_start(here: Machine, environ: dict[str, str], reason: str) -> None:
    given = having(here, **environ)
    for command in (None, ("airflow", "scheduler")):
        said = refusal(given, command)
        assert re.search(reason, said) if reason else said == ""


def test_a_server_may_listen_to_others_where_it_asks_who_they_are(here: Machine) -> None:
    given = having(here, MLFLOW_HOST=EVERY)
    assert refusal(given, SIGNED_IN) == ""
    assert refusal(given, SIGNED_IN[:2]).startswith(f"MLflow would listen on {EVERY}")
    assert "127.0.0.1 alone: unset MLFLOW_HOST" in refusal(given)


def test_the_command_says_why_and_ends() -> None:
    command = [sys.executable, "-m", "local.startup", "mlflow", "server", "--host", EVERY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"MLflow would listen on {EVERY}")


@pytest.mark.parametrize("name", ["AIRFLOW__API__HOST", "MLFLOW_HOST", "RANKMILL_WAREHUOSE"])
def test_make_run_refuses_a_setting(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in [key for key in os.environ if key.startswith(("AIRFLOW", "MLFLOW"))]:
        monkeypatch.delenv(other)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "demo.yaml").touch()
    monkeypatch.setenv(name, EVERY)
    with pytest.raises(LocalError, match=name):
        check_machine(open_stack("simulator", None, root=tmp_path), Screen())
