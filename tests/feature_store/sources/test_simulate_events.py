"""The job: arguments, summary line, exit statuses, and being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from mlflow import MlflowClient

from feature_store.sources import SourceError
from feature_store.sources.simulator import MarketConfig, write_simulation
from feature_store.sources.simulator.behaviour import ACTIONS
from feature_store.sources.simulator.day import market_day
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
        (["--processes", "0"], "--processes is 0"),
        (["--festival", "Double 11"], "'Double 11'"),
        (["--page", "soon"], "--page"),
        (["--page", "2026-11-08"], "needs the hours 2026-11-07T16 to 2026-11-08T15"),
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
        "--future-share 0.4 --malformed-share 0.005 --taste-drift 0.6 --position-decay 0.7 "
        "--trust-bias 0.08 --festival 2026-11-11 --festival-volume 9 --rooms-share 0.11 "
        "--search-share 0.12 --uniform-share 0.13 --bot-share 0.14"
    )
    arguments = build_parser().parse_args(text.split())
    assert config_of(arguments) == MarketConfig(
        seed=5, start="2026-01-01T00", requests_per_hour=9, users=8, items=77, rooms=66,
        categories=3, late_share=0.1, duplicate_share=0.2, too_late_share=0.3, future_share=0.4,
        malformed_share=0.005, taste_drift=0.6, position_decay=0.7, trust_bias=0.08,
        festival="2026-11-11", festival_volume=9.0, rooms_share=0.11, search_share=0.12,
        uniform_share=0.13, bot_share=0.14,
    )  # fmt: skip
    assert config_of(build_parser().parse_args(["--out", "x"])) == MarketConfig()


@pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
def test_a_page_shows_a_day_and_is_logged_once(tmp_path, capsys):
    out, address = tmp_path / "market", f"sqlite:///{tmp_path / 'mlflow.db'}"
    given = ("--out", out, "--hours", 48, "--page", "2026-11-09", "--tracking-uri", address, *SMALL)
    for _ in range(2):
        code, summary, _ = call(capsys, *given)
        assert code == 0
    page = Path(summary["details"]["page"])
    text = page.read_text()
    assert page == out / "2026-11-09.html"
    assert text.count("<svg") == 4
    assert "http" not in text.split("<main>")[0], "nothing is fetched"
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("simulated_marketplace")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["events_click"] > 50
    assert [f.path for f in client.list_artifacts(run.info.run_id)] == ["day.html"]


def test_a_day_in_numbers(tmp_path):
    config = MarketConfig(festival="2026-11-09")
    write_simulation(config, tmp_path / "m", 44, lambda _hour, _rows: None)
    day = market_day(tmp_path / "m", "2026-11-09")
    assert np.argmax(day.requests) == np.argmax(day.expected_requests) == 0, "the midnight rush"
    assert day.requests.sum() == pytest.approx(day.expected_requests.sum(), rel=0.1)
    assert list(day.funnel) == list(ACTIONS)
    assert day.funnel["impression"] == pytest.approx(10 * day.requests.sum(), rel=0.1)
    assert np.all(np.diff(day.click_rate[[0, 3, 9]]) < 0)
    assert np.allclose(day.category_share.sum(axis=1), 1)
    assert len(day.categories) == day.category_share.shape[1] == 7
    with pytest.raises(SourceError, match="choose another day"):
        market_day(tmp_path / "m", "2026-11-10")


def test_the_policy_in_charge_changes_the_slates_alone(tmp_path, capsys):
    for policy in ("random", "truth"):
        code, _, _ = call(capsys, "--out", tmp_path / policy, "--hours", 13, "--policy", policy,
                          "--no-truth", *SMALL)  # fmt: skip
        assert code == 0
        assert not (tmp_path / policy / "truth").exists()
    events = {
        policy: ds.dataset(tmp_path / policy / "events", format="parquet").to_table()
        for policy in ("random", "truth")
    }
    shown, clicked = (
        {
            policy: table.filter(pc.equal(table["action"], action))
            for policy, table in events.items()
        }
        for action in ("impression", "click")
    )
    asked = {policy: set(table["request_id"].to_pylist()) for policy, table in shown.items()}
    assert asked["random"] == asked["truth"]
    assert clicked["truth"].num_rows > 1.3 * clicked["random"].num_rows


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
