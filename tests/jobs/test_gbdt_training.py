"""The trees' training job end to end: what it registers, judges and goes on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from feature_store import hours as hr
from feature_store.training_set import rebuild
from jobs import train_gbdt
from jobs.support import promotions
from models.registry import Registry
from tests.jobs.conftest import HOUR, Project
from tests.jobs.gbdt_day import HOURS, NAME, QUICK, fill, fill_clicks, samples

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NEXT = hr.add(HOUR, 1)


@pytest.fixture
def days(project: Project, migrated: Path) -> Project:
    """Samples up to the end of NEXT, every fourth impression clicked, and an empty registry."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    hours = [*HOURS, HOUR, NEXT]
    fill(project, "samples", samples, hours)
    fill_clicks(project, lambda number: number % 4 == 0, hours)
    return project


def configure(project: Project, **gbdt: Any) -> None:
    project.configure(train={"gbdt": {**QUICK, **gbdt}}, evaluation={"labels": ["click"]})


def run(project: Project, job: str, hour: str, status: str) -> dict[str, Any]:
    result = project.run(job, "--hour", hour)
    assert (result.code, result.summary["status"]) == (0, status), result.out + result.err
    return {**result.summary, "said": result.err + result.out}


def registry(project: Project) -> Registry:
    return Registry(project.tracking_uri, retries=0)


def steps(summary: dict[str, Any]) -> list[str]:
    """The steps that a job took, which together are no longer than the job itself."""
    seconds = summary["details"]["seconds_by_step"]
    assert 0 < sum(seconds.values()) <= summary["seconds"] + 0.01
    return list(seconds)


def test_a_ranking_objective_is_registered_and_judged_as_scores(days: Project) -> None:
    configure(days, objective="lambdarank", debias="position")
    run(days, "train_gbdt", HOUR, "done")
    loaded = registry(days).load(NAME, 1)
    assert loaded.model.tasks == ("relevance",)
    assert [column.name for column in loaded.spec.training_only] == ["position"]
    assert loaded.version.tags["run_hour"] == HOUR
    shown = {path.stem for path in days.folder.rglob("plots/*")}
    assert {"learning_curve", "feature_importance"} <= shown
    assert "reliability" not in shown
    judged = run(days, "evaluate", HOUR, "done")
    assert judged["details"]["ndcg_at_10"]["candidate"]["click"] == pytest.approx(1.0)
    store = days.store()
    rows = store.read("evaluations", [HOUR])
    store.close()
    metrics = rows.filter(pc.equal(rows["role"], "candidate"))["metric"].to_pylist()
    assert "ndcg_at_10" in metrics
    assert "log_loss" not in metrics


def test_probabilities_are_judged_as_such(days: Project) -> None:
    """The control of the test above."""
    configure(days)
    trained = run(days, "train_gbdt", HOUR, "done")
    assert steps(trained) == [
        "plan", "read_and_label", "digest", "split", "fit", "plots", "register"
    ]  # fmt: skip
    assert "reliability" in {path.stem for path in days.folder.rglob("plots/*")}
    judged = run(days, "evaluate", HOUR, "done")
    assert steps(judged) == [
        "plan", "load_models", "read_and_judge", "pool", "report", "keep", "log"
    ]  # fmt: skip
    decided = run(days, "promote", HOUR, "promoted")
    assert steps(decided) == ["plan", "mechanical_check", "decide", "move"]
    store = days.store()
    rows = store.read("evaluations", [HOUR])
    store.close()
    assert "log_loss" in rows.filter(pc.equal(rows["role"], "candidate"))["metric"].to_pylist()


def test_weights_read_labels_beside_the_tasks(days: Project) -> None:
    configure(days, sample_weights={"click": {"conversion": 10, "stay": {"log": 0.5}}})
    run(days, "train_gbdt", HOUR, "done")
    loaded = registry(days).load(NAME, 1)
    assert loaded.spec.labels == ("label_click", "label_conversion", "label_stay")
    assert loaded.model.probabilities == ()
    options = {"path": str(days.data), "windows": {"click": 600}}
    days.configure(
        source={"name": "parquet", "options": options},
        train={"gbdt": {**QUICK, "sample_weights": {"click": {"conversion": 10}}}},
    )
    result = days.run("train_gbdt", "--hour", HOUR)
    assert (result.code, result.summary["status"]) == (2, "bad arguments")
    assert "declares no action for ['label_conversion']" in result.summary["message"]


def trees(project: Project, version: int) -> list[str]:
    text = registry(project).load(NAME, version).model.booster_text("click")
    return text[text.index("Tree=0") : text.index("end of trees")].strip().split("\n\n\n")


def test_an_hour_goes_on_from_the_champion_before_it(days: Project) -> None:
    configure(days, way="continue", continue_rounds=2)
    first = run(days, "train_gbdt", HOUR, "done")
    assert f"from scratch: {NAME} has no champion yet" in first["said"]
    assert first["details"]["warmed_from"] is None
    run(days, "evaluate", HOUR, "done")
    run(days, "promote", HOUR, "promoted")
    # A rerun of the hour must not go on from its own champion.
    assert run(days, "train_gbdt", HOUR, "unchanged")["model"]["version"] == 1

    second = run(days, "train_gbdt", NEXT, "done")
    assert "from the champion, version 1" in second["said"]
    assert second["model"]["version"] == 2
    assert second["details"]["warmed_from"] == "1"
    old, new = trees(days, 1), trees(days, 2)
    assert new[: len(old)] == old
    assert len(old) < len(new) <= len(old) + 2
    handoff = registry(days).handoff(registry(days).get(NAME, 2))
    assert handoff["warmed_from"] == {"name": NAME, "version": 1}
    assert run(days, "train_gbdt", NEXT, "unchanged")["model"]["version"] == 2
    # Whoever judges and promotes finds the version that the plan made.
    assert run(days, "evaluate", NEXT, "done")["model"]["version"] == 2

    configure(days, way="refit")
    third = run(days, "train_gbdt", NEXT, "done")
    assert third["model"]["version"] == 3
    assert len(trees(days, 3)) == len(old)
    assert third["details"]["rounds"] == {"click": 0}
    assert run(days, "evaluate", NEXT, "done")["model"]["version"] == 3


def test_a_champion_that_does_not_fit_is_left_alone(days: Project) -> None:
    configure(days, way="continue", continue_rounds=2)
    for job in ("train_gbdt", "evaluate"):
        run(days, job, HOUR, "done")
    run(days, "promote", HOUR, "promoted")
    other = {"way": "continue", "tasks": ["click", "follow"], "min_positives": 1}
    configure(days, **other)
    result = days.run("train_gbdt", "--hour", NEXT)  # nobody follows; the sentence comes before
    assert "from scratch: the champion, version 1, does not fit: its tasks is" in result.out

    configure(days, way="continue", continue_rounds=2, max_trees=3)
    full = run(days, "train_gbdt", NEXT, "done")
    assert "does not fit: it has" in full["said"]
    assert full["details"]["warmed_from"] is None
    assert run(days, "train_gbdt", NEXT, "unchanged")["model"] == full["model"]
    assert run(days, "evaluate", NEXT, "done")["model"] == full["model"]


def test_a_champion_that_has_seen_the_hour_is_not_gone_on_from(days: Project) -> None:
    """Such as one that was put back, by a decision of an earlier hour, after later ones."""
    configure(days, way="continue", continue_rounds=2)
    run(days, "train_gbdt", NEXT, "done")
    store = days.store()
    decision = {
        "decision_id": "by hand", "hour": hr.add(HOUR, -1), "name": NAME, "action": "promote",
        "version": "1", "champion": "1", "previous": None, "reason": "by hand", "evidence": {},
    }  # fmt: skip
    promotions.append(store, decision, "done")
    store.close()
    found = run(days, "train_gbdt", HOUR, "done")
    assert f"version 1, does not fit: it has seen {HOUR}, and this model may" in found["said"]
    assert found["details"]["warmed_from"] is None


def test_retraining_takes_no_notice_of_a_champion(days: Project) -> None:
    configure(days)
    for job in ("train_gbdt", "evaluate"):
        run(days, job, HOUR, "done")
    run(days, "promote", HOUR, "promoted")
    found = run(days, "train_gbdt", NEXT, "done")
    assert "champion" not in found["said"]
    assert found["details"]["warmed_from"] is None


def test_a_set_too_large_for_memory_makes_the_same_trees(
    days: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(days)
    table = run(days, "train_gbdt", HOUR, "done")
    monkeypatch.setattr(train_gbdt, "HELD_CELLS", 0)
    disk = days.run("train_gbdt", "--hour", HOUR, "--name", "spilled").summary
    assert disk["status"] == "done", disk
    assert steps(table)[1:4] == ["read_and_label", "digest", "split"]
    assert steps(disk) == ["plan", "read_and_spill", "fit", "plots", "register"]
    for key in ("rounds", "immature", "censored", "missing"):
        assert disk["details"][key] == table["details"][key]
    assert (disk["rows_in"], disk["rows_out"]) == (table["rows_in"], table["rows_out"])
    known = registry(days)
    assert known.load("spilled", 1).model.tree_version == known.load(NAME, 1).model.tree_version
    assert not list((days.folder / "scratch").iterdir())

    store = days.store()
    again = rebuild(store, known.handoff(known.get("spilled", 1)))
    store.close()
    assert again.num_rows == table["rows_in"]
    # Trees that go on are scored as a table, whatever their number.
    run(days, "evaluate", HOUR, "done")
    run(days, "promote", HOUR, "promoted")
    configure(days, way="continue", continue_rounds=2)
    warm = run(days, "train_gbdt", NEXT, "done")
    assert warm["details"]["warmed_from"] == "1"
    assert "split" in steps(warm)
