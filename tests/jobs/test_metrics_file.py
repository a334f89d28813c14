"""What runs leave for Prometheus: the format, and the files of real runs, whatever they came to."""

from __future__ import annotations

import argparse
import doctest
import json
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from feature_store import hours as hr
from jobs import ingest_events
from jobs.support import metrics_file
from jobs.support.metrics_file import (
    FOLDER,
    KEPT,
    METRICS,
    Ended,
    Sample,
    exposition,
    file_name,
    samples,
)
from jobs.support.stopwatch import STEPS
from jobs.support.summary import Summary
from tests.jobs.candidates import HELD_OUT, World
from tests.jobs.conftest import HOUR, Project, Result, event, events

BEFORE = hr.add(HOUR, -1)
LABEL = re.compile(r'(\w+)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"')
LINE = re.compile(rf"(\w+)\{{((?:{LABEL.pattern},?)*)\}} (\S+)")
UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Values = dict[str, dict[tuple[tuple[str, str], ...], float]]


def parsed(text: str) -> Values:
    """The samples of a file by metric and labels; a strict reader of the format."""
    found: Values = {}
    assert text.endswith("\n")
    lines = iter(text[:-1].split("\n"))
    name = ""
    for line in lines:
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in found, "all samples of a metric stand together"
            assert next(lines) == f"# TYPE {name} gauge"
            found[name] = {}
            continue
        match = LINE.fullmatch(line)
        assert match is not None, line
        assert match[1] == name
        labels = tuple(
            (label, re.sub(r'\\[\\"n]', lambda m: UNESCAPED[m[0]], value))
            for label, value in LABEL.findall(match[2])
        )
        assert labels not in found[name], "told twice"
        found[name][labels] = float(match[5])
    return found


def one(values: Values, name: str, **labels: str) -> float | None:
    """The value of the one sample of a metric with ``labels`` among its own; None without one."""
    wanted = labels.items()
    found = [
        v for own, v in values.get(f"rankmill_{name}", {}).items() if wanted <= dict(own).items()
    ]
    assert len(found) < 2, f"{name} has {len(found)} samples with {labels}"
    return found[0] if found else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "metrics"
    made.mkdir()
    monkeypatch.setenv(FOLDER, str(made))
    return made


@pytest.fixture
def small(project: Project) -> Project:
    """A project whose hour has 20 rows; it needs no MLflow."""
    project.tracked = False
    project.write(
        [event(3, action="teleport"), event(7, user_id=None), *events(20)[8:], *events(3)]
    )
    project.configure(ingest={"max_bad_share": 0.2, "min_bad_rows": 0})
    return project


def left(folder: Path, name: str = "ingest_events") -> Values:
    """What the one file in ``folder`` says."""
    assert [path.name for path in folder.iterdir()] == [f"rankmill_{name}.prom"]
    return parsed((folder / f"rankmill_{name}.prom").read_text())


# -- the format -----------------------------------------------------------------------------------


def ended(summary: Summary, code: int = 0, **arguments: Any) -> Ended:
    return Ended(summary, argparse.Namespace(**arguments), code, started=10.0, ended=20.5)


@pytest.mark.parametrize(
    "text", ['say "no"', "back\\slash", "two\nlines", '\\"', "\\n", "a,b={c}", "", "鞋", "x\u2028y"]
)
def test_a_label_is_read_back_as_it_was(text: str) -> None:
    written = exposition([Sample("rankmill_job_rejected_rows", 2.0, {"reason": text, "z": "1"})])
    assert parsed(written)["rankmill_job_rejected_rows"] == {(("reason", text), ("z", "1")): 2.0}


def test_help_needs_no_escapes() -> None:
    assert not [text for text in METRICS.values() if "\\" in text or "\n" in text]
    assert all(re.fullmatch(r"rankmill_[a-z0-9_]+", name) for name in METRICS)


def test_the_examples_run() -> None:
    assert doctest.testmod(metrics_file).failed == 0


def test_a_file_is_named_after_the_job_and_the_model_and_nothing_else() -> None:
    assert file_name({"batch_job": "maintain"}) == "rankmill_maintain.prom"
    assert file_name({"batch_job": "promote", "model": "../x y"}) == "rankmill_promote____x_y.prom"


def test_what_is_not_finite_or_not_known_is_left_out() -> None:
    summary = Summary("evaluate", seconds=float("nan"))
    summary.details = {
        "ndcg_at_10": {"champion": {"click": None, "order": float("nan"), "long_view": 0.5}},
        "champion": None,
    }
    values = parsed(exposition(list(samples(ended(summary)))))
    assert list(values["rankmill_ndcg_at_10"].values()) == [0.5]
    for name in ("job_duration_seconds", "job_hour_timestamp_seconds", "champion_version"):
        assert f"rankmill_{name}" not in values


def test_a_label_has_no_more_than_forty_values() -> None:
    reasons = {f"r{n}": n for n in range(100)}
    summary = Summary("ingest_events", rejected=reasons, details={STEPS: dict(reasons)})
    values = parsed(exposition(list(samples(ended(summary)))))
    for name in ("rankmill_job_rejected_rows", "rankmill_job_step_seconds"):
        assert len(values[name]) == 40
        assert sum(values[name].values()) == sum(range(100))
    assert one(values, "job_rejected_rows", reason="r99") == 99
    assert one(values, "job_rejected_rows", reason="other") == sum(range(61))


def test_a_broken_file_before_is_no_reason_to_write_none() -> None:
    name = "rankmill_champion_version"
    before = (
        f'{name}{{model="a"}} 3.0\n{name}{{model="b"}} three\n{name}\n\ufffd\nrankmill_x{{}} 1\n'
    )
    assert parsed(exposition([], before)) == {name: {(("model", "a"),): 3.0}}
    assert name in KEPT


# -- real runs ------------------------------------------------------------------------------------


def run(project: Project, *given: str) -> Result:
    return project.run("ingest_events", "--hour", HOUR, *given)


def test_a_run_that_is_done_says_what_it_did(small: Project, folder: Path) -> None:
    began = time.time()
    result = run(small)
    assert result.code == 0, result.err
    values = left(folder)
    expected = {
        "exit_status": 0, "rows_in": result.summary["rows_in"],
        "rows_out": result.summary["rows_out"],
        "duration_seconds": result.summary["seconds"],
        "hour_timestamp_seconds": hr.start_of(HOUR).timestamp(),
        "last_success_hour_timestamp_seconds": hr.start_of(HOUR).timestamp(),
    }  # fmt: skip
    for name, value in expected.items():
        assert one(values, f"job_{name}", batch_job="ingest_events") == value, name
    rejected = {dict(k)["reason"]: v for k, v in values["rankmill_job_rejected_rows"].items()}
    assert rejected == result.summary["rejected"]
    assert rejected["unknown_action"] == rejected["null_key"] == 1
    assert one(values, "job_status", status="done") == 1
    start, end = (one(values, f"job_{x}_timestamp_seconds") for x in ("start", "end"))
    assert start is not None and end is not None
    assert began <= start <= end <= time.time()
    lag = one(values, "job_lag_seconds")
    assert lag == pytest.approx(end - hr.start_of(hr.add(HOUR, 1)).timestamp())
    assert one(values, "job_last_success_timestamp_seconds") == end
    mode = stat.S_IMODE((folder / "rankmill_ingest_events.prom").stat().st_mode)
    assert mode & stat.S_IROTH, "the exporter is another user"


def test_a_refused_run_keeps_what_it_cannot_know(small: Project, folder: Path) -> None:
    assert small.run("ingest_events", "--hour", BEFORE).code == 0
    before = left(folder)
    small.configure(ingest={"max_bad_share": 0.01, "min_bad_rows": 0})
    assert run(small).code == 3
    values = left(folder)
    assert one(values, "job_exit_status") == 3
    assert one(values, "job_status", status="refused") == 1
    assert one(values, "job_status", status="done") is None
    assert one(values, "job_rows_in") is None, "not nought: nobody knows"
    assert one(values, "job_hour_timestamp_seconds") == hr.start_of(HOUR).timestamp()
    kept = one(values, "job_last_success_hour_timestamp_seconds")
    assert kept == hr.start_of(BEFORE).timestamp()
    for name in ("job_last_success_timestamp_seconds",):
        assert values[f"rankmill_{name}"] == before[f"rankmill_{name}"]


def test_a_failed_run_says_so(small: Project, folder: Path) -> None:
    (small.folder / "warehouse").write_text("no folder")
    assert run(small).code == 1
    values = left(folder)
    assert one(values, "job_exit_status") == 1
    assert one(values, "job_status", status="failed") == 1
    assert one(values, "job_last_success_timestamp_seconds") is None
    assert one(values, "job_hour_timestamp_seconds") == hr.start_of(HOUR).timestamp()


def test_bad_arguments_say_so(small: Project, folder: Path) -> None:
    assert small.run("ingest_events", "--hour", "yesterday").code == 2
    values = left(folder)
    assert one(values, "job_exit_status") == 2
    assert one(values, "job_hour_timestamp_seconds") is None


def test_the_process_leaves_the_same(small: Project, folder: Path) -> None:
    assert small.spawn("ingest_events", "--hour", HOUR).code == 0
    assert one(left(folder), "job_exit_status") == 0


@pytest.mark.parametrize("given", [("--hour", HOUR, "--dry-run"), ("--span",)])
def test_a_run_that_commits_nothing_leaves_nothing(
    small: Project, folder: Path, given: tuple[str, ...]
) -> None:
    assert small.run("ingest_events", *given).code == 0
    assert list(folder.iterdir()) == []


def test_without_the_variable_nothing_is_written(
    small: Project, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, "")
    result = run(small)
    assert (result.code, result.err) == (0, "")
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_fails_no_job_and_is_told(
    small: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "nowhere"))
    result = run(small)
    assert (result.code, result.summary["status"]) == (0, "done")
    for named in ("[ingest_events] metrics not written", "RANKMILL_METRICS", "nowhere", "make it"):
        assert named in result.err
    assert json.loads(result.out.splitlines()[-1])["job"] == "ingest_events"


def test_a_file_is_replaced_whole_or_not_at_all(
    small: Project, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(small).code == 0
    before = (folder / "rankmill_ingest_events.prom").read_text()

    def full(draft: Path, *_: object, **__: object) -> None:
        draft.write_bytes(b"half a fi")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    result = run(small)
    assert result.code == 0
    assert "metrics not written: OSError: [Errno 28] No space left on device" in result.err
    left(folder)
    assert (folder / "rankmill_ingest_events.prom").read_text() == before


def test_whatever_goes_wrong_with_the_metrics_fails_no_job(
    small: Project, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_: object) -> Summary:
        return Summary("ingest_events", [HOUR], details={STEPS: "no mapping"})

    monkeypatch.setattr(ingest_events, "ingest", odd)
    result = run(small)
    assert result.code == 0
    assert "metrics not written: " in result.err
    assert list(folder.iterdir()) == []


# -- the champion ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
def test_a_promotion_tells_the_champions_age(
    project: Project, migrated: Path, folder: Path
) -> None:
    name, (first, second, third) = "gbdt_ranker", HELD_OUT
    shutil.copy(migrated, project.folder / "mlflow.db")
    world = World.of(project)
    world.champion(world.candidate(name, first), first)
    world.candidate(name, second)
    assert project.run("evaluate", "--hour", second).code == 0
    began = time.time()
    assert project.run("promote", "--hour", second).summary["status"] == "promoted"
    told = parsed((folder / "rankmill_promote_gbdt_ranker.prom").read_text())
    assert one(told, "champion_version", model=name) == 2
    assert one(told, "champion_age_seconds") == 3600
    assert one(told, "champion_data_hour_timestamp_seconds") == hr.start_of(first).timestamp()
    promoted = one(told, "champion_promoted_timestamp_seconds")
    assert promoted is not None and began - 1 < promoted < time.time()
    assert one(told, "job_step_seconds", step="mechanical_check")

    judged = parsed((folder / "rankmill_evaluate_gbdt_ranker.prom").read_text())
    assert one(judged, "champion_version") == 1
    assert one(judged, "champion_age_seconds") == 2 * 3600
    for role in ("candidate", "champion", "popularity"):
        value = one(judged, "ndcg_at_10", role=role, label="click")
        assert value is not None and 0 < value <= 1, role

    assert project.run("promote", "--hour", third).code == 3, "no version of that hour"
    refused = parsed((folder / "rankmill_promote_gbdt_ranker.prom").read_text())
    assert one(refused, "job_exit_status") == 3
    for metric in told:
        if metric.startswith("rankmill_champion_"):
            assert refused[metric] == told[metric], "kept while nobody can decide"
    history = (folder / "rankmill_promote_gbdt_ranker.prom").read_text()
    assert project.run("promote", "--history").code == 0
    assert (folder / "rankmill_promote_gbdt_ranker.prom").read_text() == history

    rolled = project.run("promote", "--hour", third, "--rollback")
    assert rolled.summary["status"] == "promoted", rolled.err
    back = parsed((folder / "rankmill_promote_gbdt_ranker.prom").read_text())
    assert one(back, "champion_version") == 1
    assert one(back, "champion_age_seconds") == 3 * 3600
    since = one(back, "champion_promoted_timestamp_seconds")
    assert since is not None and since > promoted
