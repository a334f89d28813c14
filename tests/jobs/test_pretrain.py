"""Pre-training by day, judgement and promotion, through the real jobs on a small store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from feature_store import hours as hr
from feature_store.sequence_views import SEQUENCE_VIEWS
from feature_store.training_set import RebuildError, rebuild
from jobs.support.plans import registered_name
from models.registry import Registry
from models.trainer import Trainer
from tests.jobs.conftest import Project
from tests.jobs.deep_days import BEFORE, DATE, DAY, EMPTY, FIRST, ROWS, fill_days

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

FITTED = {"epochs": 2, "batch_size": 64, "min_positives": 20, "embedding": 4, "device": "cpu",
          "checkpoint_batches": 2, "learning_rate": 0.01}  # fmt: skip
MMOE = {**FITTED, "tasks": ["click"], "experts": 2, "expert_layers": [32, 16],
        "tower_layers": [16]}  # fmt: skip
MODELS = {
    "mmoe": MMOE,
    "shared_bottom": {**FITTED, "tasks": ["click"]},
    "live_transformer": {**FITTED, "tasks": ["click"], "epochs": 1},
}
BUCKETS = {"user_buckets": 64, "item_buckets": 64, "room_buckets": 16}


def configure(project: Project, mmoe: dict[str, Any] | None = None, **pretrain: Any) -> None:
    models = MODELS if mmoe is None else {**MODELS, "mmoe": mmoe}
    sections = {"models": models, **BUCKETS, **pretrain}
    project.configure(pretrain=sections, evaluation={"labels": ["click"]})


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with a day to fit on and a day to judge on; nothing is promoted."""
    folder = tmp_path_factory.mktemp("two_days")
    fill_days(Project(folder))
    return folder


@pytest.fixture
def days(project: Project, two_days: Path, migrated: Path) -> Project:
    """The project with that store and an empty registry."""
    shutil.copy(migrated, two_days / "mlflow.db")
    shutil.rmtree(two_days / "scratch", ignore_errors=True)
    project = Project(two_days, project.capture)
    configure(project)
    return project


def registry(project: Project) -> Registry:
    return Registry(project.tracking_uri, retries=0)


def checkpoints(project: Project) -> list[Path]:
    return list((project.folder / "scratch" / "checkpoints").glob("*"))


@pytest.mark.parametrize(
    ("job", "name"),
    [("pretrain_mmoe", "mmoe_ranker"), ("pretrain_transformer", "live_transformer")],
)
def test_a_day_gives_one_version_with_its_hand_off(days: Project, job: str, name: str) -> None:
    result = days.run(job, "--date", DATE)
    assert (result.code, result.summary["status"]) == (0, "done"), result.err
    assert result.summary["model"] == {"name": name, "version": 1}
    assert f"from scratch: {name} has no champion yet" in result.out
    assert checkpoints(days) == [], "what a killed run would go on from is gone"
    [version] = registry(days).versions(name)
    body = registry(days).handoff(version)
    assert body["trained_hours"] == [BEFORE[0], BEFORE[-1]]
    assert (body["data_hour"], body["cut"], body["warmed_from"]) == (BEFORE[-1], FIRST, None)
    stored = body["training_set"]
    assert stored["rows"] == (len(BEFORE) - 1) * ROWS == result.summary["rows_in"]
    assert set(result.summary["details"]["censored"]) == {"click"}
    views = {view.table for view in SEQUENCE_VIEWS} if name == "live_transformer" else set()
    assert set(body["iceberg_snapshots"]) == {"samples", "outcomes"} | views

    again = days.run(job, "--date", DATE)
    assert (again.code, again.summary["status"]) == (0, "unchanged")
    assert [v.version for v in registry(days).versions(name)] == [1]

    store = days.store()
    table = rebuild(store, body)
    assert table.num_rows == stored["rows"]
    assert any(column.startswith("user_items_") for column in table.column_names) == bool(views)
    with pytest.raises(RebuildError, match="was trained on"):
        rebuild(store, {**body, "training_set": {**stored, "sha256": "0" * 64}})


def test_too_few_hours_are_skipped(days: Project) -> None:
    short = hr.add(FIRST, -1)
    for job, *more in (
        ("pretrain_mmoe",), ("pretrain_transformer",),
        ("evaluate", "--name", "mmoe_ranker"), ("promote", "--name", "mmoe_ranker"),
    ):  # fmt: skip
        result = days.run(job, "--hour", short, *more)
        assert (result.code, result.summary["status"]) == (0, "skipped"), result.err
        assert "23 complete hours before" in result.summary["message"]
    assert registry(days).versions("mmoe_ranker") == []


@pytest.mark.parametrize(
    ("pretrain", "said"),
    [
        ({"models": {"mmoe": {**MMOE, "leaves": 3}}}, "leaves"),
        ({"models": {"mmoe": {**MMOE, "epochs": 0}}}, "epochs is 0"),
        ({"models": {"mmoe": {**MMOE, "tasks": ["bounce"]}}}, "no action for ['label_bounce']"),
        ({"models": {"bert": {}}}, "names ['bert']"),
        ({"models": {"mmoe": 3}}, "must be a mapping"),
        ({"feature_service": "rankings"}, "no feature service 'rankings'"),
        ({"span_days": 0}, "span_days is 0"),
        ({"user_buckets": 1}, "'user_id' has 1 buckets"),
        ({"span": 1}, "unknown keys ['span']"),
    ],
)
def test_a_bad_configuration(days: Project, pretrain: Any, said: str) -> None:
    configure(days, **pretrain)
    result = days.run("pretrain_mmoe", "--date", DATE)
    assert (result.code, result.summary["status"]) == (2, "bad arguments"), result.out
    assert said in result.summary["message"]


def test_a_range_of_hours_is_no_day(days: Project) -> None:
    result = days.run("pretrain_mmoe", "--from-hour", DAY[0], "--to-hour", DAY[1])
    assert result.code == 2
    assert "one --date, got 2 hours" in result.summary["message"]


def test_too_few_positives_register_nothing(days: Project) -> None:
    configure(days, mmoe={**MMOE, "min_positives": 10_000})
    before = days.state()
    result = days.run("pretrain_mmoe", "--date", DATE)
    assert (result.code, result.summary["status"]) == (1, "failed")
    assert "task 'click' has too few positives" in result.summary["message"]
    assert registry(days).versions("mmoe_ranker") == []
    assert days.state() == before


def weights(project: Project, version: int, folder: Path) -> bytes:
    known = registry(project)
    path = known.download(known.get("mmoe_ranker", version), folder)
    return (path / "weights.safetensors").read_bytes()


def test_a_killed_run_goes_on_where_it_was(
    days: Project, migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of its second epoch; what comes of it is what an undisturbed run gives."""
    undisturbed = days.run("pretrain_mmoe", "--date", DATE)
    assert undisturbed.code == 0, undisturbed.err
    expected = weights(days, 1, tmp_path / "a")
    shutil.copy(migrated, days.folder / "mlflow.db")
    steps, step = iter(range(21)), Trainer.step

    def killed(self: Trainer, *given: Any) -> Any:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            days.run("pretrain_mmoe", "--date", DATE)
    assert len(checkpoints(days)) == 1
    assert registry(days).versions("mmoe_ranker") == []
    resumed = days.run("pretrain_mmoe", "--date", DATE)
    assert (resumed.code, resumed.summary["status"]) == (0, "done"), resumed.err
    assert "going on from a checkpoint: epoch 2, batch 4" in resumed.out
    assert weights(days, 1, tmp_path / "b") == expected
    assert checkpoints(days) == []


def test_a_dry_run_registers_nothing_and_leaves_nothing(days: Project) -> None:
    before = days.state()
    result = days.run("pretrain_mmoe", "--date", DATE, "--dry-run")
    assert (result.code, result.summary["status"]) == (0, "dry-run"), result.err
    assert result.summary["model"] is None
    assert registry(days).versions("mmoe_ranker") == []
    assert (days.state(), checkpoints(days)) == (before, [])


@pytest.fixture
def own(project: Project, migrated: Path) -> Project:
    """The same in a store that no other test sees."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    configure(project)
    fill_days(project)
    return project


def run(project: Project, job: str, status: str, *arguments: str) -> dict[str, Any]:
    result = project.run(job, *arguments)
    assert (result.code, result.summary["status"]) == (0, status), result.out + result.err
    return {**result.summary, "out": result.out}


def test_a_day_is_judged_promoted_and_gone_on_from(own: Project) -> None:
    daily = ("--date", DATE, "--evaluation", "daily", "--name")
    missing = own.run("evaluate", *daily, "mmoe_ranker")
    assert (missing.code, missing.summary["status"]) == (3, "refused")
    assert f"pretrain_mmoe.py --model mmoe --hour {FIRST}" in missing.summary["message"]

    for family in ("mmoe", "shared_bottom"):
        run(own, "pretrain_mmoe", "done", "--date", DATE, "--model", family)
        judged = run(own, "evaluate", "done", *daily, registered_name(family))
        assert judged["rows_in"] == (len(DAY) - 1) * ROWS
    rows = own.store().read("evaluations", [FIRST], where={"evaluation": "daily"})
    assert set(rows["name"].to_pylist()) == {
        "mmoe_ranker", "shared_bottom_ranker", "popularity", "popularity_1h", "random"
    }  # fmt: skip
    assert set(rows["cut"].to_pylist()) == {hr.add(FIRST, 24)}
    groups = own.store().read("evaluation_groups", [FIRST], where={"evaluation": "daily"})
    mine = groups.filter(pc.equal(groups["name"], "mmoe_ranker"))
    judged_hours = {group.split("|")[0] for group in mine["group_id"].to_pylist()}
    assert judged_hours == set(DAY) - set(EMPTY)
    ndcg = pc.mean(mine["ndcg_at_10"]).as_py()
    assert ndcg > 0.7, "better than by chance: the position that is clicked shows in a feature"

    promoted = run(own, "promote", "promoted", *daily, "mmoe_ranker")
    assert "there is no champion yet" in promoted["message"]
    champion = registry(own).alias("mmoe_ranker", "champion")
    assert champion is not None
    assert champion.version == 1
    assert registry(own).alias("shared_bottom_ranker", "champion") is None
    run(own, "pretrain_mmoe", "unchanged", "--date", DATE)

    warm = run(own, "pretrain_mmoe", "done", "--date", "2026-11-12")
    assert "from the champion, version 1" in warm["out"]
    body = registry(own).handoff(registry(own).get("mmoe_ranker", 2))
    assert body["warmed_from"] == {"name": "mmoe_ranker", "version": 1}
    assert (body["data_hour"], body["cut"]) == (DAY[-1], hr.add(FIRST, 24))
    later = own.run("evaluate", "--date", "2026-11-12", "--name", "mmoe_ranker")
    assert (later.code, later.summary["status"]) == (3, "refused")
    assert "samples of 2026-11-12T00 to 2026-11-12T23 are not there" in later.summary["message"]

    asked = run(own, "pretrain_mmoe", "done", "--date", "2026-11-12", "--from-scratch")
    assert "from scratch: as was asked" in asked["out"]
    assert asked["model"]["version"] == 3
    configure(own, mmoe={**MMOE, "experts": 3})
    other = run(own, "pretrain_mmoe", "done", "--date", "2026-11-12")
    assert "from scratch: the champion, version 1, does not fit: its weights" in other["out"]
    run(own, "pretrain_mmoe", "unchanged", "--date", "2026-11-12")
