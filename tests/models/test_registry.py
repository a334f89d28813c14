"""Registering, finding, judging and loading versions, against a real tracking store."""

from __future__ import annotations

import io
import json
import os
import pickletools
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from models import mechanical_check, retry
from models.gbdt import GBDTRanker
from models.handoff import HandoffError
from models.registry import Registry, RegistryError, Version
from tests.models.conftest import SPEC, make_table
from tests.models.small_versions import small_version

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

NAME = "gbdt_ranker"
HANDOFF = {
    "data_hour": "2026-11-11T05",
    "trained_hours": ["2026-11-10T06", "2026-11-11T05"],
    "iceberg_snapshots": {"samples": 71, "outcomes": 72},
}


@pytest.fixture(scope="session")
def saved(fitted: GBDTRanker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    fitted.save(folder)
    return folder


def _pass() -> None:
    """A guard that lets everything through."""


def _register(registry: Registry, saved: Path, run_key: str = "k1", **other: Any) -> Version:
    arguments: dict[str, Any] = {
        "metrics": {"fit_valid_loss_click": 0.4, "undefined": float("nan")},
        "params": {"num_leaves": 31, "tasks": ["click", "follow"]},
        "tags": {"code_version": "0.1.0"},
        "input_example": make_table(5, seed=7),
        "plots": {"learning_curve": Figure()},
        "description": "Trained on a day.",
        "guard": _pass,
        "handoff": HANDOFF,
    }
    return registry.register(NAME, run_key, saved, SPEC, **{**arguments, **other})


def _active_runs(registry: Registry) -> list[str]:
    experiment = registry._open_experiment(NAME)
    client = mlflow.MlflowClient(registry.tracking_uri)
    return [run.info.run_id for run in client.search_runs([experiment])]


def test_a_version_carries_its_tags(registry: Registry, saved: Path, fitted: GBDTRanker) -> None:
    version = _register(registry, saved)
    assert version.version == 1
    assert version.tags == {
        "code_version": "0.1.0",
        "data_hour": "2026-11-11T05",
        "feature_spec_sha": SPEC.sha,
        "iceberg_snapshots": '{"outcomes": 72, "samples": 71}',
        "run_key": "k1",
        "tree_version": fitted.tree_version,
    }
    run = mlflow.MlflowClient(registry.tracking_uri).get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"fit_valid_loss_click": 0.4}
    assert run.data.params["num_leaves"] == "31"
    assert run.data.tags["mlflow.note.content"] == "Trained on a day."
    assert registry.run_url(version.run_id) is None


def test_the_same_run_key_gives_the_same_version(registry: Registry, saved: Path) -> None:
    first = _register(registry, saved)
    assert _register(registry, saved) == first
    assert _register(registry, saved, run_key="k2").version == 2
    assert [version.version for version in registry.versions(NAME)] == [1, 2]
    assert registry.find(NAME, "k1") == first
    assert registry.find(NAME, "k3") is None
    assert registry.find("nobody", "k1") is None


def test_versions_of_a_day_and_of_an_hour(registry: Registry) -> None:
    for number, hour in enumerate(("2026-11-11T05", "2026-11-11T06", "2026-11-12T05")):
        small_version(registry, NAME, hour, number)
    registry.set_alias(NAME, "champion", 2)
    found = registry.of_time(NAME, "data_hour", "2026-11-11")
    assert [(item.version, item.aliases) for item in found] == [(1, ()), (2, ("champion",))]
    found = registry.of_time(NAME, "data_hour", "2026-11-12T05")
    assert [item.version for item in found] == [3]
    assert registry.of_time("nobody", "data_hour", "2026-11-12") == []
    with pytest.raises(RegistryError, match="write 2026-11-11"):
        registry.of_time(NAME, "data_hour", "2026%")


def test_a_guard_that_refuses_leaves_nothing(registry: Registry, saved: Path) -> None:
    def refuse() -> None:
        assert registry.find(NAME, "k1") is None, "the guard comes before the version"
        raise PermissionError("fenced off by a later run")

    with pytest.raises(PermissionError, match="fenced off"):
        _register(registry, saved, guard=refuse)
    assert registry.versions(NAME) == []
    assert _active_runs(registry) == []
    version = _register(registry, saved)
    assert [item.version for item in registry.versions(NAME)] == [version.version]
    assert _active_runs(registry) == [version.run_id]


def test_a_run_that_another_cleared_away_says_who_took_over(
    registry: Registry, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that MLflow has lost its model, which is true, and of no use."""
    others: list[Version] = []
    upload = registry._upload

    def guard() -> None:
        if others:
            raise PermissionError("taken over")

    def overtaken(*given: Any) -> None:
        monkeypatch.undo()
        others.append(_register(registry, saved))
        upload(*given)

    monkeypatch.setattr(registry, "_upload", overtaken)
    with pytest.raises(PermissionError, match="taken over"):
        _register(registry, saved, guard=guard)
    assert registry.versions(NAME) == others


def test_killed_before_the_version_a_rerun_gives_exactly_one(
    registry: Registry, saved: Path
) -> None:
    code = (
        "import os, signal, sys, pathlib\n"
        "from models.registry import Registry\n"
        "from tests.models.test_registry import _register\n"
        "_register(Registry(sys.argv[1]), pathlib.Path(sys.argv[2]),"
        " guard=lambda: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, registry.tracking_uri, str(saved)],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)}, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert registry.versions(NAME) == []
    orphans = _active_runs(registry)
    assert len(orphans) == 1
    version = _register(registry, saved)
    assert [item.version for item in registry.versions(NAME)] == [1]
    assert _active_runs(registry) == [version.run_id] != orphans
    experiment = registry._open_experiment(NAME)
    models = mlflow.MlflowClient(registry.tracking_uri).search_logged_models([experiment])
    assert [model.model_id for model in models] == [version.model_id]


def test_runs_of_other_keys_are_left_alone(registry: Registry, saved: Path) -> None:
    first = _register(registry, saved)
    second = _register(registry, saved, run_key="k2")
    assert sorted(_active_runs(registry)) == sorted([first.run_id, second.run_id])


def test_two_versions_of_one_key_shrink_to_the_first(registry: Registry, saved: Path) -> None:
    first = _register(registry, saved)
    client = mlflow.MlflowClient(registry.tracking_uri)
    client.create_model_version(NAME, str(saved), first.run_id, tags={"run_key": "k1"})
    tags = dict(first.tags)
    found = registry._create_version(NAME, "k1", first.run_id, first.model_id, tags, "")
    assert found == first
    assert [item.version for item in registry.versions(NAME)] == [1]


def test_aliases_move(registry: Registry, saved: Path) -> None:
    _register(registry, saved)
    assert registry.alias(NAME, "champion") is None
    assert registry.alias("nobody", "champion") is None
    _register(registry, saved, run_key="k2")
    for number in (1, 2):
        registry.set_alias(NAME, "champion", number)
        champion = registry.alias(NAME, "champion")
        assert champion is not None
        assert champion.version == number
        held = {item.version: item.aliases for item in registry.versions(NAME)}
        assert held == {number: ("champion",), 3 - number: ()}
    assert registry.get(NAME, 2).aliases == ("champion",)


def test_loaded_it_gives_the_same_bits(
    registry: Registry, saved: Path, fitted: GBDTRanker, valid: pa.Table
) -> None:
    registry.set_alias(NAME, "champion", _register(registry, saved).version)
    for which in (1, "1", "champion"):
        loaded = registry.load(NAME, which)
        assert np.array_equal(loaded.model.score(valid), fitted.score(valid))
        assert loaded.spec == SPEC
        assert loaded.version.version == 1
        assert loaded.optimizer_state is None
    handoff = loaded.handoff
    assert {key: handoff[key] for key in HANDOFF} == HANDOFF
    assert handoff["schema_version"] == 1
    assert handoff["feature_spec_sha"] == SPEC.sha
    assert handoff["tree_version"] == fitted.tree_version
    assert set(handoff["files"]) == {
        "boosters/click.txt", "boosters/follow.txt", "config.json", "feature_spec.json",
        "input_example.parquet", "leaves.json", "metrics.json",
    }  # fmt: skip
    with pytest.raises(RegistryError, match=r"no alias 'challenger'.*\[1\]"):
        registry.load(NAME, "challenger")
    with pytest.raises(RegistryError, match="version 9"):
        registry.load(NAME, 9)


def test_the_input_example_keeps_its_types(
    registry: Registry, saved: Path, fitted: GBDTRanker
) -> None:
    given = make_table(5, seed=7)
    example = registry.input_example(_register(registry, saved, input_example=given))
    assert example.equals(given.select(list(SPEC.columns)))
    assert np.isfinite(fitted.score(example)).all()


def test_pyfunc_serves_frames_as_the_ranker_does(
    registry: Registry, saved: Path, fitted: GBDTRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = _register(registry, saved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.tracking_uri)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}/{version.version}")
    table = make_table(50, seed=9).select(list(SPEC.columns))
    found = model.predict(table.to_pandas())
    assert list(found.columns) == ["click", "follow", "score"]
    assert np.array_equal(found["score"].to_numpy(), fitted.score(table))
    assert model.metadata.signature.inputs.input_names() == list(SPEC.columns)
    assert model.input_example is not None
    empty = table.slice(0, 2).set_column(2, "kind", pa.nulls(2, pa.string()))
    assert np.array_equal(model.predict(empty.to_pandas())["score"].to_numpy(), fitted.score(empty))


def test_nothing_is_pickled(registry: Registry, saved: Path, tmp_path: Path) -> None:
    _register(registry, saved)
    files = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {
        "MLmodel", "pyfunc_ranker.py", "handoff.json", "feature_spec.json", "config.json",
        "metrics.json", "click.txt", "input_example.json", "learning_curve.png",
    }  # fmt: skip
    for path in files:
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".pt"}
        content = path.read_bytes()
        with pytest.raises(ValueError):
            list(pickletools.genops(io.BytesIO(content)))
    metrics = next(path for path in files if path.name == "metrics.json")
    assert json.loads(metrics.read_text())["undefined"] is None


def test_an_altered_artefact_is_not_loaded(registry: Registry, saved: Path, tmp_path: Path) -> None:
    _register(registry, saved)
    booster = next((tmp_path / "artifacts").rglob("click.txt"))
    booster.write_text(booster.read_text() + " ")
    with pytest.raises(RegistryError, match=r"version 1: .*boosters/click\.txt"):
        registry.load(NAME, 1)


def test_evaluations_are_added_to_the_version(
    registry: Registry, saved: Path, tmp_path: Path
) -> None:
    version = _register(registry, saved)
    for value in (0.5, 0.6):
        registry.log_evaluation(
            version,
            {"heldout_ndcg_at_10_click": value, "heldout_gauc_click": float("nan")},
            tags={"evaluated_hour": "2026-11-11T06"},
            artefacts={"report.json": "{}", "curve": Figure()},
        )
    run = mlflow.MlflowClient(registry.tracking_uri).get_run(version.run_id)
    assert run.data.metrics["heldout_ndcg_at_10_click"] == 0.6
    assert "heldout_gauc_click" not in run.data.metrics
    assert registry.get(NAME, 1).tags["evaluated_hour"] == "2026-11-11T06"
    names = {path.name for path in (tmp_path / "artifacts").rglob("evaluation/*")}
    assert names == {"report.json", "curve.png"}


def test_what_does_not_fit_is_refused_before_a_run_starts(registry: Registry, saved: Path) -> None:
    other = {**HANDOFF, "feature_spec": {}}
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (RegistryError, "code_version", {"tags": {}}),
        (RegistryError, "tree_version", {"tags": {"code_version": "1", "tree_version": "x"}}),
        (RegistryError, "data_hour", {"handoff": {}}),
        (RegistryError, "run key", {"run_key": "a'b"}),
        (ValueError, "missing: x", {"input_example": make_table(3, 1).drop_columns(["x"])}),
    ]
    for kind, text, change in cases:
        with pytest.raises(kind, match=text):
            _register(registry, saved, **change)
    with pytest.raises(HandoffError, match="feature_spec"):
        _register(registry, saved, handoff=other)
    assert registry.versions(NAME) == []
    assert _active_runs(registry) == []


def test_a_pickle_among_the_files_is_refused(
    registry: Registry, fitted: GBDTRanker, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model")
    (tmp_path / "model" / "extra.pkl").write_bytes(b"")
    with pytest.raises(HandoffError, match=r"extra\.pkl"):
        _register(registry, tmp_path / "model")


def test_an_unreachable_server_is_named_soon() -> None:
    registry = Registry("http://127.0.0.1:1", retries=2, backoff=0.05)
    started = time.monotonic()
    with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:1 .*3 tries") as error:
        registry.find(NAME, "k1")
    assert "MLFLOW_TRACKING_URI" in str(error.value)
    assert time.monotonic() - started < 10
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"):
        Registry("")


def test_the_mechanical_check_tells_a_gone_server_from_a_bad_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retry, "time", types.SimpleNamespace(sleep=lambda _: None))
    asked = ["--tracking-uri", "http://127.0.0.1:1", "--name", NAME, "--version", "1"]
    assert mechanical_check.main(asked) == mechanical_check.UNAVAILABLE
    assert "MLflow at http://127.0.0.1:1 did not" in capsys.readouterr().out
