"""Orphans: a job whose parent is gone, or was gone before it could look."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jobs.support.fencing import ORPHANED

JOB = """
import time
from jobs.support.fencing import end_with_parent
end_with_parent()
print("goes on", flush=True)
time.sleep({seconds})
"""


def run(seconds: float, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JOB.format(seconds=seconds)]
    return subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_job_goes_on_while_its_parent_lives() -> None:
    ended = run(0.5)
    assert (ended.returncode, ended.stdout) == (0, "goes on\n"), ended.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_a_driver_whose_spark_submit_was_gone_before_it_began_ends_at_once() -> None:
    ended = run(30, PYSPARK_GATEWAY_PORT="1")  # its parent is no JVM, but whoever took it over
    assert (ended.returncode, ended.stdout) == (ORPHANED, "")
    assert "the parent process is gone" in ended.stderr


def test_a_job_ends_when_its_parent_dies() -> None:
    parent = (
        "import subprocess, sys\n"
        f"command = [sys.executable, '-c', {JOB.format(seconds=300)!r}]\n"
        "job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "print(job.stdout.readline())\n"  # it watches by now
    )
    command = [sys.executable, "-c", parent]
    # Reading to the end waits for the job as well, which holds the same pipe for its errors.
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "goes on" in ended.stdout
    assert "the parent process is gone" in ended.stderr
