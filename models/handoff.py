"""What a registered version tells the system downstream: the artefact folder and handoff.json.

The folder holds what the ranker saved, ``metrics.json``, the input example and ``handoff.json``,
which names the file that says what the leaf ids of trees mean. Its schema has a version: a reader
refuses one that it does not know instead of guessing.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from models.base import CONFIG_FILE, FeatureSpec, ModelError, read_json, write_json
from models.leaf_layout import LEAVES_FILE

__all__ = [
    "EXAMPLE_FILE",
    "HANDOFF_FILE",
    "METRICS_FILE",
    "SCHEMA_VERSION",
    "HandoffError",
    "file_shas",
    "pack",
    "verify",
]

SCHEMA_VERSION: Final = 1
EXAMPLE_FILE: Final = "input_example.parquet"
HANDOFF_FILE: Final = "handoff.json"
METRICS_FILE: Final = "metrics.json"
_WANTED: Final = ("data_hour", "trained_hours", "iceberg_snapshots")
_PICKLES: Final = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")


class HandoffError(ModelError):
    """An artefact folder that is incomplete, altered, or of another schema version."""


def file_shas(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder`` but handoff.json, by its relative POSIX path."""
    shas = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != HANDOFF_FILE:
            with path.open("rb") as stream:
                shas[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return shas


def pack(
    saved: Path,
    target: Path,
    name: str,
    run_key: str,
    spec: FeatureSpec,
    metrics: Mapping[str, float],
    handoff: Mapping[str, Any],
    example: pa.Table,
    model_uri: str,
) -> dict[str, Any]:
    """Copy a saved model to ``target``, add metrics, example and handoff.json, return the latter.

    ``handoff`` must hold ``data_hour`` (the last hour seen), ``trained_hours`` ([first, last]) and
    ``iceberg_snapshots`` (table to snapshot id); whatever else it holds is kept. ``model_uri`` is
    the MLflow address by which the artefact can be loaded.

    Raises:
        HandoffError: for a key that is missing or taken, a pickle among the files, or a saved
            model with another FeatureSpec.
    """
    missing = [key for key in _WANTED if key not in handoff]
    if missing:
        raise HandoffError(f"the hand-off of {name} lacks {', '.join(missing)}; pass them along")
    pickles = [path.name for path in saved.rglob("*") if path.suffix.lower() in _PICKLES]
    if pickles:
        raise HandoffError(f"pickles are not registered: {', '.join(sorted(pickles))}")
    shutil.copytree(saved, target)
    config = read_json(target / CONFIG_FILE)
    write_json(
        target / METRICS_FILE,
        {key: value if math.isfinite(value) else None for key, value in metrics.items()},
    )
    pq.write_table(example, target / EXAMPLE_FILE)
    own = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "run_key": run_key,
        "family": config["family"],
        "tasks": [
            task if isinstance(task, str) else task["name"]
            for task in config["config"].get("tasks", [])
        ],
        "feature_spec": json.loads(spec.to_json()),
        "feature_spec_sha": spec.sha,
        "tree_version": config.get("tree_version", ""),
        "leaf_layout": LEAVES_FILE if (target / LEAVES_FILE).is_file() else "",
        "files": file_shas(target),
        "load": {
            "python": "models.registry.Registry(TRACKING_URI).load(NAME, VERSION_OR_ALIAS)",
            "folder": "models.load_ranker(FOLDER)",
            "pyfunc": f"mlflow.pyfunc.load_model({model_uri!r})",
            "needs": "the `models` package of Rankmill on the path",
        },
    }
    taken = sorted(set(own) & set(handoff))
    if taken:
        raise HandoffError(f"the hand-off sets {', '.join(taken)}, which the registry fills in")
    body = {**handoff, **own}
    write_json(target / HANDOFF_FILE, body)
    return body


def verify(folder: Path) -> dict[str, Any]:
    """The hand-off of an artefact folder, after checking its schema version and its files.

    Raises:
        HandoffError: for another schema version, or a file that is missing, altered or not named.
    """
    body = read_json(folder / HANDOFF_FILE)
    if body.get("schema_version") != SCHEMA_VERSION:
        raise HandoffError(
            f"handoff.json has schema version {body.get('schema_version')!r}, known is "
            f"{SCHEMA_VERSION}; load it with the release that wrote it"
        )
    found, named = file_shas(folder), body["files"]
    wrong = sorted(key for key in set(found) | set(named) if found.get(key) != named.get(key))
    if wrong:
        raise HandoffError(
            f"files that are missing, altered or not named in handoff.json: {', '.join(wrong)}; "
            "fetch the version again, or register the model again"
        )
    return body
