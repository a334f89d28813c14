"""Every file in conf/ is accepted by the jobs, and trains only what its source declares."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from jobs.support.settings import load_settings
from models import GBDTConfig

CONF = Path(__file__).resolve().parents[2] / "conf"
PATHS = [path for path in sorted(CONF.glob("*.yaml")) if path.name != "gates.yaml"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_configuration_is_accepted(path, tmp_path, monkeypatch):
    monkeypatch.delenv("RANKMILL_DATA", raising=False)
    options = dict.fromkeys(("warehouse", "catalog_uri", "tracking_uri"))
    settings = load_settings(argparse.Namespace(config=str(path), data=str(tmp_path), **options))
    windows = settings.open_source().windows
    assert set(GBDTConfig.from_dict(dict(settings.train.gbdt)).tasks) <= set(windows)
    assert settings.evaluation.labels[0] in windows
