"""The job: arguments, summary line, exit statuses, and being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feature_store.sources.simulator import MarketConfig
from jobs.simulate_events import build_parser, config_of, main
from tests.feature_store.sources.market import files

SMALL = ("--requests-per-hour", "20", "--users", "100", "--items", "100", "--rooms", "40")
JOB = Path(__file__).resolve().parents[3] / "jobs" / "simulate_events.py"


def call(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    lines = capsys.readouterr().out.splitlines()
    return code, json.loads(lines[-1]), lines[:-1]


def test_writes_and_then_leaves_alone(tmp_path, capsys):
    out = tmp_path / "market"
    code, summary, lines = call(capsys, "--out", out, "--hours", 30, *SMALL)
    assert (code, summary["status"], summary["job"]) == (0, "done", "simulate_events")
    assert summary["hours"] == ["2026-11-08T00", "2026-11-09T05"]
    assert summary["rows_out"] > 3000
    assert [line.split("]")[0] for line in lines] == ["[simulate_events"] * 3  # two days
    before = files(out)
    code, summary, _ = call(capsys, "--out", out, "--hours", 30, *SMALL)
    assert (code, summary["status"], summary["rows_out"]) == (0, "unchanged", 0)
    code, summary, _ = call(capsys, "--out", out, "--hours", 30, "--seed", 2, *SMALL)
    assert code == 2
    assert "new folder" in summary["message"]
    assert files(out) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hours", "0"], "--hours is 0"),
        (["--users", "0"], "users is 0"),
        (["--malformed-share", "0.5"], "malformed_share"),
        (["--start", "yesterday"], "'yesterday'"),
    ],
)
def test_bad_arguments_exit_2_and_write_nothing(tmp_path, capsys, arguments, words):
    code, summary, _ = call(capsys, "--out", tmp_path / "m", *arguments)
    assert code == 2
    assert words in summary["message"]
    assert not (tmp_path / "m").exists()


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "m").write_text("")
    code, summary, _ = call(capsys, "--out", tmp_path / "m")
    assert code == 2
    assert "is a file" in summary["message"]


@pytest.mark.parametrize("arguments", [[], ["--out", "x", "--hour", "2026-11-08T00"]])
def test_unknown_arguments_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_dry_run_writes_nothing(tmp_path, capsys):
    code, summary, _ = call(capsys, "--out", tmp_path / "m", "--dry-run")
    assert (code, summary["status"]) == (0, "dry-run")
    assert not (tmp_path / "m").exists()


def test_every_argument_reaches_the_configuration():
    text = (
        "--out x --seed 5 --start 2026-01-01T00 --requests-per-hour 9 --users 8 --items 77 "
        "--rooms 66 --categories 3 --late-share 0.1 --duplicate-share 0.2 --too-late-share 0.3 "
        "--future-share 0.4 --malformed-share 0.005"
    )
    arguments = build_parser().parse_args(text.split())
    assert config_of(arguments) == MarketConfig(
        seed=5, start="2026-01-01T00", requests_per_hour=9, users=8, items=77, rooms=66,
        categories=3, late_share=0.1, duplicate_share=0.2, too_late_share=0.3, future_share=0.4,
        malformed_share=0.005,
    )  # fmt: skip
    assert config_of(build_parser().parse_args(["--out", "x"])) == MarketConfig()


def test_killed_and_repeated_gives_the_same_files(tmp_path):
    def command(out):
        return [sys.executable, str(JOB), "--out", str(out), "--hours", "72", *SMALL]

    process = subprocess.Popen(
        command(tmp_path / "a"), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "a/events/hour=2026-11-08T20").exists():
        assert time.monotonic() < deadline, "the job writes nothing"
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads((tmp_path / "a/simulation.json").read_text())["hours"] == 0
    for name in ("a", "b"):
        subprocess.run(command(tmp_path / name), cwd=tmp_path, check=True, capture_output=True)
    assert files(tmp_path / "a") == files(tmp_path / "b")
