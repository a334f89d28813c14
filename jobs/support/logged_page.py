"""A page of some hours in MLflow: once per store and name, whatever reruns there are."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from feature_store.tables import Store
from jobs.support.settings import Settings
from jobs.support.summary import progress

__all__ = ["PAGES", "LoggedPage", "log_page", "page_key"]

PAGES: Final = ("gates", "graph", "evaluations", "replay")
"""Experiments of pages; models have others."""


@dataclass(frozen=True)
class LoggedPage:
    """What is logged beside a page.

    Attributes:
        experiment: in MLflow; ``name`` is unique in it for a store, and replaced by a rerun.
        files: by name the pages' texts.
    """

    experiment: str
    name: str
    title: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    files: Mapping[str, str]


def page_key(store: Store, experiment: str, name: str = "") -> str:
    """The run key of page ``name``; without a name, how those of the store's pages begin."""
    where = hashlib.sha256(store.warehouse.encode()).hexdigest()[:8]
    return f"{experiment}:{where}:{name}"


def log_page(
    job: str, store: Store, settings: Settings, page: LoggedPage, hours: Sequence[str], token: str,
    stage: str | None = None,
) -> str | None:  # fmt: skip
    """Log ``page`` while ``token`` holds ``hours``; its address, if it has one.

    Args:
        stage: whose fence the token took; the job's by default.

    Raises:
        RegistryError: when MLflow does not answer.
        FencedOutError: when a later run has taken the hours over.
    """
    if not settings.tracking_uri:
        progress(job, "no page: neither --tracking-uri nor MLFLOW_TRACKING_URI is set")
        return None
    from models.registry import Registry  # MLflow takes seconds to import

    version = importlib.metadata.version("rankmill")
    with store.ledger.holding(stage or job, list(hours), token):
        return Registry(settings.tracking_uri).log_page(
            page.experiment,
            page_key(store, page.experiment, page.name),
            page.title,
            {"data_hour": hours[-1], "code_version": version},
            dict(page.params),
            dict(page.metrics),
            dict(page.files),
        )
