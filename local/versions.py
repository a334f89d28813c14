"""The registered model versions, from MLflow's REST API, and the table that ends a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from rich.table import Table

__all__ = ["ModelVersion", "interval", "read_versions", "version_table"]

METRIC = "heldout_ndcg_at_10_click"
POPULARITY = "popularity_ndcg_at_10_click"
TIMEOUT = (3, 30)
SHOWN = 12
"""Versions of a name, besides those with an alias."""


@dataclass(frozen=True)
class ModelVersion:
    """One registered version; metrics are NDCG@10 of the click, None where not measured."""

    name: str
    version: int
    aliases: tuple[str, ...]
    data_hour: str
    ndcg: float | None
    low: float | None
    high: float | None
    popularity: float | None


class Mlflow:
    """A session with the tracking server."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, path: str, **parameters: str | int) -> dict[str, Any]:
        """One GET of the REST API."""
        url = f"{self.address}/api/2.0/mlflow/{path}"
        answer = self.session.get(url, params=parameters, timeout=TIMEOUT)
        answer.raise_for_status()
        return dict(answer.json())

    def pages(self, path: str, key: str, **parameters: str | int) -> list[dict[str, Any]]:
        """All rows of a search that comes in pages."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self.get(path, **parameters, **({"page_token": token} if token else {}))
            found += page.get(key, [])
            token = page.get("next_page_token", "")
            if not token:
                return found


def read_versions(address: str) -> list[ModelVersion]:
    """Of every registered name the newest ``SHOWN`` versions and those with an alias, by name and
    number.

    Raises:
        requests.RequestException: when the server does not answer.
    """
    server = Mlflow(address)
    aliases: dict[tuple[str, str], list[str]] = {}
    models = server.pages("registered-models/search", "registered_models", max_results=100)
    for model in models:
        for alias in model.get("aliases", []):
            aliases.setdefault((model["name"], str(alias["version"])), []).append(alias["alias"])
    found = []
    for row in (row for model in models for row in newest(server, model["name"], aliases)):
        tags = {tag["key"]: tag["value"] for tag in row.get("tags", [])}
        metrics = run_metrics(server, row.get("run_id"))
        found.append(
            ModelVersion(
                row["name"],
                int(row["version"]),
                tuple(sorted(aliases.get((row["name"], str(row["version"])), []))),
                tags.get("data_hour", ""),
                metrics.get(METRIC),
                metrics.get(f"{METRIC}_low"),
                metrics.get(f"{METRIC}_high"),
                metrics.get(POPULARITY),
            )
        )
    return sorted(found, key=lambda version: (version.name, version.version))


def newest(
    server: Mlflow, name: str, aliases: Mapping[tuple[str, str], Collection[str]]
) -> list[dict[str, Any]]:
    """The newest versions of a name; after them those that only an alias keeps in sight."""
    page = server.get(
        "model-versions/search", filter=f"name = '{name}'", order_by="version_number DESC",
        max_results=SHOWN,
    )  # fmt: skip
    rows: list[dict[str, Any]] = page.get("model_versions", [])
    there = {str(row["version"]) for row in rows}
    older = (number for model, number in aliases if model == name and number not in there)
    asked = (server.get("model-versions/get", name=name, version=number) for number in older)
    return [*rows, *(answer["model_version"] for answer in asked)]


def run_metrics(server: Mlflow, run_id: str | None) -> dict[str, float]:
    """The last value of each metric of a run."""
    if not run_id:
        return {}
    data = server.get("runs/get", run_id=run_id)["run"]["data"]
    return {metric["key"]: float(metric["value"]) for metric in data.get("metrics", [])}


def interval(version: ModelVersion) -> str:
    """NDCG@10 with its 95 % interval: ``.846 [.841, .851]``; a dash where it was not measured."""
    if version.ndcg is None:
        return "-"
    if version.low is None or version.high is None:
        return f"{version.ndcg:.4f}"
    return f"{version.ndcg:.4f} [{version.low:.4f}, {version.high:.4f}]"


def version_table(versions: list[ModelVersion]) -> Table:
    """What was registered, one row per version that was read."""
    title = "Registered models (NDCG@10 of the click on the hour or day held out)"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column("version", justify="right")
    table.add_column("alias", style="green")
    table.add_column("data hour", no_wrap=True)
    table.add_column("NDCG@10 [95 %]", no_wrap=True)
    table.add_column("popularity", justify="right")
    for version in versions:
        popularity = "-" if version.popularity is None else f"{version.popularity:.4f}"
        table.add_row(
            version.name,
            str(version.version),
            ", ".join(version.aliases),
            version.data_hour,
            interval(version),
            popularity,
        )
    return table
