"""Every file in conf/ is accepted by the jobs, and trains only what its source declares."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark import cloudpickle

from feature_store import hours as hr
from feature_store.labels import LABELS, label_column
from feature_store.services import feature_service
from jobs.support.deep_features import deep_spec
from jobs.support.embeddings import configured
from jobs.support.settings import load_settings
from models import MODELS
from models.gbdt import GBDTConfig
from tests.jobs.conftest import HOUR, Project, events

CONF = Path(__file__).resolve().parents[2] / "conf"
PATHS = [path for path in sorted(CONF.glob("*.yaml")) if path.name != "gates.yaml"]


def settings_of(path, tmp_path, monkeypatch):
    monkeypatch.delenv("RANKMILL_DATA", raising=False)
    options = dict.fromkeys(("warehouse", "catalog_uri", "tracking_uri"))
    return load_settings(argparse.Namespace(config=str(path), data=str(tmp_path), **options))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_configuration_is_accepted(path, tmp_path, monkeypatch):
    settings = settings_of(path, tmp_path, monkeypatch)
    windows = settings.open_source().windows
    assert set(GBDTConfig.from_dict(dict(settings.train.gbdt)).tasks) <= set(windows)
    assert settings.evaluation.labels[0] in windows


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_pre_trained_can_be_built(path, tmp_path, monkeypatch):
    """With small tables: what counts is that keys, tasks and columns fit."""
    settings = settings_of(path, tmp_path, monkeypatch)
    windows = settings.open_source().windows
    service = feature_service(settings.pretrain.feature_service)
    small = replace(settings.pretrain, user_buckets=8, item_buckets=8, room_buckets=8)
    for family, config in settings.pretrain.models.items():
        tasks = MODELS[family].config_tasks(config)
        assert all(LABELS[task].declared(windows) for task in tasks), family
        spec = deep_spec(service, [label_column(task) for task in tasks], small)
        assert MODELS[family].build(config, spec).tasks == tasks


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_embedded_can_be_walked(path, tmp_path, monkeypatch):
    assert configured(settings_of(path, tmp_path, monkeypatch)).config.metapaths


def test_a_source_is_asked_for_its_hours_and_time_zone(project: Project) -> None:
    project.write([*events(3), *events(3, hr.add(HOUR, 5))])
    project.configure(source={"name": "parquet", "options": {"time_zone": "Europe/Paris"}})
    result = project.run("ingest_events", "--span", "--data", str(project.data))
    assert result.code == 0
    assert result.summary["hours"] == [HOUR, hr.add(HOUR, 5)]
    assert result.summary["details"] == {"time_zone": "Europe/Paris"}


def test_no_password_is_sent_to_another_machine(tmp_path, monkeypatch):
    secret = "p%40ss"  # noqa: S105
    catalog, tracking = f"postgresql+psycopg://u:{secret}@h/catalog", f"http://u:{secret}@h:5000"
    monkeypatch.setenv("RANKMILL_CATALOG_URI", catalog)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    settings = settings_of(CONF / "demo.yaml", tmp_path, monkeypatch)
    assert (settings.catalog_uri, settings.tracking_uri) == (catalog, tracking)
    sent = cloudpickle.dumps(settings.sent())
    assert secret.encode() not in sent
    assert cloudpickle.loads(sent).received() == settings
    monkeypatch.setenv("RANKMILL_CATALOG_URI", "sqlite:////tables.db")
    plain = settings_of(CONF / "demo.yaml", tmp_path, monkeypatch)
    monkeypatch.delenv("RANKMILL_CATALOG_URI")
    assert plain.sent().received().catalog_uri == "sqlite:////tables.db", "nothing to hide"
