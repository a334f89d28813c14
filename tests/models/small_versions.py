"""Versions without a model that could rank, registered in milliseconds: what retention needs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.registry import Registry, Version

__all__ = ["small_version"]


def small_version(
    registry: Registry, name: str, data_hour: str, number: int = 0,
    snapshots: Mapping[str, int] | None = None,
) -> Version:  # fmt: skip
    """A version of ``name`` as registering makes it: a run with a metric, a model with one file."""
    run_key = f"{name}|{data_hour}|{number}"
    tags = {
        "run_key": run_key,
        "data_hour": data_hour,
        "code_version": "0.1.0",
        "iceberg_snapshots": json.dumps(dict(snapshots or {})),
    }
    experiment = registry._open_experiment(name)
    run_id = registry._start_run(experiment, name, tags, {}, "small")
    model_id = registry._new_model(experiment, run_id, name, "gbdt", {})
    registry._log_metrics(run_id, model_id, {"ndcg": 0.5})

    def send(client: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "model.txt").write_text("weights")
            client.log_model_artifacts(model_id, folder)
        client.finalize_logged_model(model_id, "READY")

    registry._call("take a file", send)
    registry._finish_run(run_id)
    return registry._create_version(name, run_key, run_id, model_id, tags, "")
