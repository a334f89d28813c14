"""A training set made again, bit for bit, from what the registry says of a model."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store import hours as hr
from feature_store.services import feature_service
from feature_store.training_set import RebuildError, Recipe, content_digest, rebuild, training_set
from jobs.support.settings import load_settings
from models.registry import Registry
from tests.jobs.conftest import HOUR, Project
from tests.jobs.gbdt_day import HOURS, NAME, QUICK, clicks, fill, fill_clicks, samples
from tests.jobs.test_bad_training import day, trained

__all__ = ["day", "trained"]  # fixtures

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")


def train(project: Project, **settings: Any) -> dict[str, Any]:
    """Train the model of HOUR; what its hand-off says."""
    project.configure(train={"gbdt": QUICK, **settings})
    result = project.run("train_gbdt", "--hour", HOUR)
    assert result.code == 0, result.err
    registry = Registry(project.tracking_uri)
    return registry.handoff(registry.get(NAME, result.summary["model"]["version"]))


def a_week_later(project: Project) -> None:
    """Later hours arrive, one of the model's hours is made anew, and one loses its gate's word."""
    for hour in hr.hour_range(HOUR, hr.add(HOUR, 168))[::24]:
        fill(project, "samples", samples, [hour])
        fill(project, "outcomes", lambda of: clicks(of, lambda number: number % 3 == 0), [hour])
    fill(project, "outcomes", lambda hour: clicks(hour, lambda number: number % 2 == 0), HOURS[-4:])
    store = project.store()
    store.ledger.validate("samples", {HOURS[2]: False})
    store.close()


@pytest.fixture
def own(project: Project, migrated: Path) -> Project:
    """The same as ``trained`` in a store that no other test sees."""
    shutil.copy(migrated, project.folder / "mlflow.db")
    fill(project, "samples", samples, HOURS)
    fill_clicks(project, lambda number: number % 4 == 0)
    return project


def test_a_week_of_runs_later_it_is_the_same(own: Project, tmp_path: Path) -> None:
    trained, windows = own, trained_windows(own)
    store = trained.store()
    before = training_set(store, HOURS[0], HOURS[-1], HOUR, windows)
    store.close()
    body = train(trained)
    assert body["training_set"]["sha256"] == content_digest(before)
    a_week_later(trained)
    out = tmp_path / "again.parquet"
    result = trained.run("export_training_set", "--version", "1", "--out", str(out))
    assert (result.code, result.summary["status"]) == (0, "done"), result.err
    assert result.summary["rows_out"] == before.num_rows == body["training_set"]["rows"]
    again = pq.read_table(out)
    assert again.equals(before)
    assert content_digest(again) == content_digest(before)
    store = trained.store()
    today = training_set(store, HOURS[0], HOURS[-1], HOUR, windows)
    store.close()
    assert not today.equals(before), "the control: what is there now is something else"


def trained_windows(project: Project) -> dict[str, int]:
    options = dict.fromkeys(("data", "warehouse", "catalog_uri", "tracking_uri"))
    path = str(project.folder / "conf.yaml")
    return dict(load_settings(argparse.Namespace(config=path, **options)).open_source().windows)


def test_what_differs_is_refused(trained: Project, tmp_path: Path) -> None:
    body = train(trained)
    stored = body["training_set"]
    store = trained.store()
    assert rebuild(store, body).num_rows == stored["rows"]
    lineage = stored["recipe"]["lineage"]
    for change, said in (
        ({"sha256": "0" * 64}, "was trained on"),
        ({"recipe": {**stored["recipe"], "cut": hr.add(HOUR, -2)}}, "labels"),
        ({"recipe": {**stored["recipe"], "lineage": {**lineage, "snapshots": {"samples": 7}}}},
         "snapshot 7 of table samples is not there"),
        ({"recipe": {**stored["recipe"], "lineage": {}}}, "lacks"),
    ):  # fmt: skip
        with pytest.raises(RebuildError, match=said):
            rebuild(store, {**body, "training_set": {**stored, **change}})
    with pytest.raises(RebuildError, match="train the hour again"):
        rebuild(store, {key: value for key, value in body.items() if key != "training_set"})
    [path, *_] = store.files("samples", HOURS[:1])
    store.close()
    rows = pq.read_table(path)
    altered = rows.set_column(
        rows.schema.get_field_index("item_ctr_24h"), "item_ctr_24h",
        pc.cast(pc.add(rows["item_ctr_24h"], 1e-3), pa.float32()),
    )  # fmt: skip
    pq.write_table(altered, path, compression="zstd")
    out = tmp_path / "again.parquet"
    result = trained.run("export_training_set", "--version", "1", "--out", str(out))
    assert (result.code, result.summary["status"]) == (3, "refused")
    assert "files of its snapshots were altered" in result.summary["message"]
    assert not out.exists()
    pq.write_table(rows, path, compression="zstd")  # the folder is other tests' as well


def test_the_arguments_of_an_export(trained: Project, tmp_path: Path) -> None:
    train(trained)
    job = "export_training_set"
    result = trained.run(job, "--version", "1", "--out", str(tmp_path / "no" / "file"))
    assert (result.code, result.summary["status"]) == (2, "bad arguments")
    result = trained.run(job, "--version", "champion", "--out", str(tmp_path / "file"))
    assert result.code == 1
    assert "has no alias 'champion'; its versions are [1]" in result.summary["message"]
    dry = trained.run(job, "--version", "1", "--out", str(tmp_path / "file"), "--dry-run")
    assert (dry.code, dry.summary["status"]) == (0, "dry-run")
    assert not (tmp_path / "file").exists()


def test_a_model_reads_what_its_service_serves(trained: Project) -> None:
    body = train(trained, feature_service="item_statistics")
    service = feature_service("item_statistics")
    recipe = Recipe.from_dict(body["training_set"]["recipe"])
    assert (recipe.service, recipe.columns) == (service.name, service.columns())
    registry = Registry(trained.tracking_uri)
    version = registry.get(NAME, 1)
    assert set(registry.load(NAME, 1).spec.columns) == set(service.columns())
    assert version.tags["feature_service"] == "item_statistics"
    assert version.tags["training_set_sha"] == body["training_set"]["sha256"]
    assert json.loads(json.dumps(recipe.to_dict())) == body["training_set"]["recipe"]


def test_an_unknown_service_is_a_bad_configuration(trained: Project) -> None:
    trained.configure(train={"gbdt": QUICK, "feature_service": "rankings"})
    result = trained.run("train_gbdt", "--hour", HOUR)
    assert (result.code, result.summary["status"]) == (2, "bad arguments")
    assert "no feature service 'rankings'; there are [" in result.summary["message"]
    assert "'ranking'" in result.summary["message"]


def test_what_is_open_at_the_cut_is_reported(trained: Project) -> None:
    trained.configure(train={"gbdt": QUICK}, source={
        "name": "parquet",
        "options": {"path": str(trained.data), "windows": {"click": 2 * 3600}},
    })  # fmt: skip
    fill_clicks(trained, lambda number: number % 4 == 0)
    result = trained.run("train_gbdt", "--hour", HOUR)
    assert result.code == 0, result.err
    # Shown at the start of their hour: two hours later nothing after the cut can follow any more.
    assert result.summary["details"]["censored"] == {"click": {HOURS[-2]: 1.0, HOURS[-1]: 1.0}}
    client = Registry(trained.tracking_uri)
    body = client.handoff(client.get(NAME, 1))
    assert body["training_set"]["recipe"]["windows"] == {"click": 7200}
