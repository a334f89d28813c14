"""A task's job as a real process: its lines, its exit status, its summary and its certain end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from structlog.testing import capture_logs

from dags.process import JobProcess
from dags.tasks import DATE, JobOperator, Period
from dags.tasks import HOUR as HOURLY
from tests.dags.conftest import alive

HOUR = "2026-11-11T05"
CONTEXT: Any = {"ti": SimpleNamespace(run_id="scheduled__x", try_number=2)}
SUMMARY = {"job": "stub", "status": "done", "mlflow_run_url": "http://127.0.0.1:5000/#/run/1",
           "report_url": "http://127.0.0.1:5000/#/run/1/artifacts/report.html"}  # fmt: skip

GROUP = """
    import os, signal, subprocess, sys, time
    if len(sys.argv) == 2:
        subprocess.Popen([sys.executable, __file__, sys.argv[1], "child"])
    elif sys.argv[2] == "child":
        subprocess.Popen([sys.executable, __file__, sys.argv[1], "grandchild"])
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("pid", os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Writes a Python file; returns its path."""

    def write(source: str) -> str:
        path = tmp_path / "stub.py"
        path.write_text(textwrap.dedent(source))
        return str(path)

    return write


def operator(path: str, *arguments: str) -> JobOperator:
    task = JobOperator(task_id="stub", job="stub", application=path, arguments=arguments)
    task.period = HOUR
    return task


def run(task: JobOperator) -> dict[str, Any] | None:
    return task.run_job(CONTEXT, [sys.executable, task.application, *task.arguments])


def logged(entries: list[Any]) -> dict[str, str]:
    """Level by message."""
    return {entry["event"]: entry["log_level"] for entry in entries}


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it did not become true in time")
        time.sleep(0.02)


def pids(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def test_the_summary_is_returned_and_the_link_kept(script: Callable[[str], str]) -> None:
    task = operator(script(f"print('working'); print({json.dumps(SUMMARY)!r})"))
    assert run(task) == SUMMARY
    links = [link.get_link(task, ti_key=None) for link in task.operator_extra_links]
    assert links == [SUMMARY["mlflow_run_url"], SUMMARY["report_url"]]


def test_a_line_after_the_summary_does_not_hide_it(script: Callable[[str], str]) -> None:
    task = operator(script(f"print({json.dumps(SUMMARY)!r}); print('{{\"a\": 1}}'); print('bye')"))
    assert run(task) == SUMMARY


def test_a_job_without_summary_succeeds_and_says_so(script: Callable[[str], str]) -> None:
    task = operator(script("print('nothing more')"))
    with capture_logs() as logs:
        assert run(task) is None
    assert logged(logs) == {
        "nothing more": "info",
        "stub printed no summary; its XCom is empty": "warning",
    }
    assert [one.get_link(task, ti_key=None) for one in task.operator_extra_links] == ["", ""]


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (1, AirflowException, "stub of 2026-11-11T05 failed (exit status 1)"),
        (2, AirflowFailException, "was given bad arguments or configuration (exit status 2)"),
        (3, AirflowFailException, "was refused by a gate (exit status 3)"),
        (7, AirflowException, "failed (exit status 7)"),
    ],
)
def test_only_2_and_3_are_final(
    script: Callable[[str], str], status: int, error: type[Exception], words: str
) -> None:
    source = f"""
        import sys
        print("the row that was wrong", file=sys.stderr)
        print('{{"job": "stub", "message": "volume 3x its median"}}')
        sys.exit({status})
    """
    with pytest.raises(AirflowException) as raised:
        run(operator(script(source)))
    assert type(raised.value) is error
    assert words in str(raised.value)
    assert "volume 3x its median" in str(raised.value)
    assert "the row that was wrong" in str(raised.value)


def test_the_link_of_a_refused_hour_is_kept(script: Callable[[str], str]) -> None:
    """A gate refuses, and the task that failed opens the page that shows why."""
    task = operator(script(f"import sys; print({json.dumps(SUMMARY)!r}); sys.exit(3)"))
    with pytest.raises(AirflowFailException):
        run(task)
    link = task.operator_extra_links[0].get_link(task, ti_key=None)
    assert link == SUMMARY["mlflow_run_url"]


def test_a_killed_job_is_retried_and_names_the_signal(script: Callable[[str], str]) -> None:
    with pytest.raises(AirflowException, match=r"ended by SIGKILL") as raised:
        run(operator(script("import os; os.kill(os.getpid(), 9)")))
    assert type(raised.value) is AirflowException


def test_a_missing_job_file_is_final(tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match="No such file"):
        run(operator(str(tmp_path / "absent.py")))


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (HOURLY, "This run has no hour: trigger it with the parameter `hour`, e.g. 2026-11-11T05"),
        (DATE, "This run has no date: trigger it with the parameter `date`, e.g. 2026-11-11"),
    ],
)
def test_without_a_period_nothing_starts(
    script: Callable[[str], str], tmp_path: Path, of: Period, words: str
) -> None:
    task = operator(script(f"open({str(tmp_path / 'ran')!r}, 'w')"))
    task.of, task.period = of, ""
    with pytest.raises(AirflowFailException) as raised:
        run(task)
    assert str(raised.value) == words
    assert not (tmp_path / "ran").exists()


def test_lines_arrive_while_the_job_runs(script: Callable[[str], str], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    source = f"""
        import pathlib, sys, time
        print("\\u00e9v\\u00e9nements", flush=True)
        while not pathlib.Path({str(seen)!r}).exists():
            time.sleep(.01)
        print("second, without newline", end="", flush=True)
    """
    lines: list[str] = []

    def line(text: str) -> None:
        lines.append(text)
        seen.touch()

    process = JobProcess([sys.executable, "-X", "utf8", script(source)], os.environ, line)
    assert process.wait() == 0
    assert lines == ["événements", "second, without newline"]


def test_log_levels_are_those_of_spark(script: Callable[[str], str]) -> None:
    source = """
        import sys
        print("26/11/11 05:00:01 INFO SparkContext: running", file=sys.stderr)
        print("26/11/11 05:00:02 WARN Utils: a WARN", file=sys.stderr)
        print("26/11/11 05:00:03 ERROR Executor: an error", file=sys.stderr)
        print("plain ERROR of 100 %s", file=sys.stderr)
        print('{"job": "stub"}')
    """
    with capture_logs() as logs:
        run(operator(script(source)))
    assert logged(logs) == {
        "26/11/11 05:00:01 INFO SparkContext: running": "info",
        "26/11/11 05:00:02 WARN Utils: a WARN": "warning",
        "26/11/11 05:00:03 ERROR Executor: an error": "error",
        "plain ERROR of 100 %s": "info",
        '{"job": "stub"}': "info",
    }


def test_the_job_gets_its_token_and_none_of_airflows_secrets(
    script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://hidden-word")
    monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", "hidden-word")
    monkeypatch.setenv("RANKMILL_WAREHOUSE", "/warehouse")
    monkeypatch.setenv("RANKMILL_METRICS", "/metrics")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    source = """
        import json, os
        print(json.dumps({"job": "stub", "env": dict(os.environ)}))
    """
    summary = run(operator(script(source)))
    assert summary is not None
    env = summary["env"]
    assert env["RANKMILL_RUN_ID"] == "scheduled__x#2"
    assert env["RANKMILL_WAREHOUSE"] == "/warehouse"
    assert env["RANKMILL_METRICS"] == "/metrics"
    assert env["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert not any("hidden-word" in value for value in env.values())


def test_stdin_is_not_the_channel_to_airflow(script: Callable[[str], str]) -> None:
    source = """
        import json, sys
        print(json.dumps({"job": "stub", "read": sys.stdin.read()}))
    """
    reading, writing = os.pipe()
    os.write(writing, b"for the supervisor")
    os.close(writing)
    before = os.dup(0)
    os.dup2(reading, 0)
    try:
        assert run(operator(script(source))) == {"job": "stub", "read": ""}
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(reading)


def started_group(
    script: Callable[[str], str], tmp_path: Path
) -> tuple[JobOperator, Callable[[], list[int]]]:
    """An operator over three generations, the youngest deaf to TERM, and the list of their ids."""
    lines = tmp_path / "pids"
    task = operator(script(GROUP), "x")
    plain = task._log_line

    def note(text: str) -> None:
        plain(text)
        if text.startswith("pid "):
            with lines.open("a") as file:
                file.write(f"{text[4:]} ")

    task._log_line = note
    return task, lambda: pids(lines)


def test_on_kill_ends_the_whole_group(script: Callable[[str], str], tmp_path: Path) -> None:
    task, known = started_group(script, tmp_path)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run(task)
        except AirflowException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until(lambda: len(known()) == 3)
    started = time.monotonic()
    task.on_kill()
    assert time.monotonic() - started < 5, "Airflow kills the task's own process after 5 s"
    assert not [pid for pid in known() if alive(pid)]
    thread.join(10)
    assert "ended by SIGTERM" in str(errors[0])


def test_a_timeout_ends_the_whole_group(script: Callable[[str], str], tmp_path: Path) -> None:
    task, known = started_group(script, tmp_path)

    class TimedOut(BaseException):
        """Not an Exception, as Airflow's own timeout is not."""

    def on_alarm(*_: object) -> None:
        if len(known()) == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise TimedOut

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.3, 0.1)
    try:
        with pytest.raises(TimedOut):
            run(task)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(known()) == 3
    assert not [pid for pid in known() if alive(pid)]


def test_whoever_outlives_the_job_is_ended_with_it(
    script: Callable[[str], str],
) -> None:
    source = """
        import subprocess, sys
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print('{"job": "stub", "left": %d}' % left.pid)
    """
    started = time.monotonic()
    summary = run(operator(script(source)))
    assert summary is not None
    assert time.monotonic() - started < 10
    assert not alive(summary["left"])


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="needs Linux's parent-death signal"
)
def test_the_job_dies_with_a_worker_that_was_killed(
    script: Callable[[str], str], tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    worker = f"""
        import os, sys
        from dags.process import JobProcess
        def line(text):
            open({str(note)!r}, "w").write(text)
        code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
        JobProcess([sys.executable, "-c", code], os.environ, line).wait()
    """
    path = script(worker)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, path], env=environment)
    try:
        until(lambda: len(pids(note)) == 1, seconds=20)
        [job] = pids(note)
        assert alive(job)
    finally:
        process.kill()
        process.wait()
    until(lambda: not alive(job))
