"""What a soak's store, registry and folders hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from small_stack import SmallStack


def folder_of(path: Path) -> tuple[int, float]:
    """Files below ``path`` and their MiB."""
    count, size = 0, 0
    waiting = [os.fspath(path)] if path.exists() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    count, size = count + 1, size + entry.stat(follow_symlinks=False).st_size
    return count, size / 2**20


def measured(place: SmallStack) -> dict[str, Any]:
    """Sizes in MiB, and counts, of everything that is kept."""
    tables = {}
    for folder in sorted((place.stack.warehouse / "rankmill").iterdir()):
        parts = {part: folder_of(folder / part) for part in ("data", "metadata")}
        tables[folder.name] = [
            value if isinstance(value, int) else round(value, 3)
            for part in parts.values() for value in part
        ]  # fmt: skip
    files, size = folder_of(place.artefacts)
    mb = {
        "data": sum(t[1] for t in tables.values()),
        "metadata": sum(t[3] for t in tables.values()),
        "artefacts": size,
        "scratch": folder_of(place.scratch)[1],
        "temporary": folder_of(place.stack.state / "tmp")[1],
        "logs": folder_of(place.stack.logs)[1],
    }
    for name in ("catalog", "mlflow"):
        [(bytes_,)] = place.rows(name, f"select pg_database_size('{name}')")
        mb[name] = bytes_ / 2**20
    counts = {
        "data_files": sum(t[0] for t in tables.values()),
        "metadata_files": sum(t[2] for t in tables.values()),
        "artefact_files": files,
    }
    for database, names in COUNTED.items():
        query = ", ".join(f"(select count(*) from {name})" for name in names)  # noqa: S608
        [row] = place.rows(database, f"select {query}")
        counts |= dict(zip(names, row, strict=True))
    return {"mb": {k: round(v, 3) for k, v in mb.items()}, "counts": counts, "tables": tables}


COUNTED: Final = {
    "catalog": ("hours", "fences"),
    "mlflow": ("model_versions", "logged_models", "runs", "params", "tags", "metrics",
               "logged_model_metrics"),
}  # fmt: skip
