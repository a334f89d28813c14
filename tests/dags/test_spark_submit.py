"""The Spark variant of a task, through the real ``spark-submit`` over scripts without a session."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.tasks import SparkJobOperator
from tests.dags.conftest import alive

HOUR = "2026-11-11T05"
CONTEXT: Any = {"ti": SimpleNamespace(run_id="scheduled__x", try_number=1)}

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="spark-submit needs Java")


def operator(path: Path, source: str) -> SparkJobOperator:
    path.write_text(textwrap.dedent(source))
    task = SparkJobOperator(
        task_id="stub",
        job="stub",
        application=str(path),
        arguments=["--hour", HOUR, "--accept=two words"],
    )
    task.period = HOUR
    return task


def run(task: SparkJobOperator) -> dict[str, Any] | None:
    return SparkJobOperator.execute.__wrapped__(task, CONTEXT)


@needs_java
def test_arguments_environment_and_exit_status_pass_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARK_LOCAL_IP", raising=False)
    source = """
        import json, os, sys
        names = ("RANKMILL_RUN_ID", "AIRFLOW_CONN_SPARK_DEFAULT", "SPARK_LOCAL_IP")
        env = {name: os.environ.get(name) for name in names}
        print("the views of hour 04 are not there", file=sys.stderr)
        print(json.dumps({"job": "stub", "argv": sys.argv[1:], "python": sys.executable, **env}))
        sys.exit(3)
    """
    with pytest.raises(AirflowFailException, match="views of hour 04 are not there") as raised:
        run(operator(tmp_path / "stub.py", source))
    text = str(raised.value)
    assert "was refused by a gate (exit status 3)" in text
    [summary] = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert summary == {
        "job": "stub",
        "argv": ["--hour", HOUR, "--accept=two words"],
        "python": sys.executable,
        "RANKMILL_RUN_ID": "scheduled__x#1",
        "AIRFLOW_CONN_SPARK_DEFAULT": None,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


@needs_java
def test_on_kill_ends_the_jvm_and_the_driver(tmp_path: Path) -> None:
    source = """
        import os, time
        print("pids", os.getpid(), os.getppid(), flush=True)
        time.sleep(60)
    """
    task = operator(tmp_path / "stub.py", source)
    seen: list[int] = []

    def kill_at_first_sight(text: str) -> None:
        if text.startswith("pids "):
            seen.extend(map(int, text.split()[1:]))
            threading.Thread(target=task.on_kill).start()

    task._log_line = kill_at_first_sight
    with pytest.raises(AirflowException, match="stub of 2026-11-11T05 failed") as raised:
        run(task)
    assert type(raised.value) is AirflowException
    assert len(seen) == 2
    assert not [pid for pid in seen if alive(pid)]


def test_without_a_connection_nothing_is_submitted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database: Path,  # noqa: ARG001
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SPARK_DEFAULT")
    with pytest.raises(AirflowFailException, match="set AIRFLOW_CONN_SPARK_DEFAULT="):
        run(operator(tmp_path / "stub.py", ""))


def test_cluster_deploy_mode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_SPARK_DEFAULT",
        '{"conn_type": "spark", "host": "yarn", "extra": {"deploy-mode": "cluster"}}',
    )
    with pytest.raises(AirflowException, match="use 'client'"):
        run(operator(tmp_path / "stub.py", ""))
