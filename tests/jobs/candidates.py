"""Candidates for promotion, good and bad: real boosters, registered as train_gbdt does it."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.tables import Store
from feature_store.training_set import build
from jobs.support import promotions
from jobs.support.plans import Plan, gbdt_plan
from jobs.support.settings import Settings, load_settings
from jobs.support.training import split
from models import FeatureSpec
from models.gbdt import GBDTConfig, GBDTRanker
from models.registry import Registry, Version
from tests.jobs.conftest import HOUR, Project
from tests.jobs.gbdt_day import QUICK, clicks, fill, samples

__all__ = ["HELD_OUT", "UNSEEN", "World", "nan_leaves"]

HELD_OUT = hr.hour_range(HOUR, hr.add(HOUR, 2))
UNSEEN = "column_of_another_store"
"""A column that no sample has."""

Alter = Callable[[str], str]


def _same(text: str) -> str:
    return text


def _samples(hour: str) -> pa.Table:
    """With what popularity ranks by, too."""
    table = samples(hour)
    known = {
        "target_type": pa.array(["item"] * len(table)),
        "item_ctr_15d": pa.array(np.arange(len(table)) % 3),
        "room_ctr_15d": pa.array(np.zeros(len(table))),
    }
    for name, column in known.items():
        at = table.column_names.index(name)
        table = table.set_column(at, table.schema.field(at), column.cast(table.schema.types[at]))
    return table


def nan_leaves(text: str, every: bool) -> str:
    """A booster that says NaN of all rows, or of those of the first leaf of each tree."""
    value = r"(?<=leaf_value=).*" if every else r"(?<=leaf_value=)\S+"
    sized = re.sub(r"tree_sizes=.*\n", "", text)  # LightGBM finds the trees without it, too
    return re.sub(value, lambda found: " ".join("nan" for _ in found[0].split()), sized)


@dataclass
class World:
    """A store with a day to train on and HELD_OUT to judge on, and its registry."""

    project: Project

    @classmethod
    def of(cls, project: Project) -> World:
        project.configure(
            train={"gbdt": QUICK},
            evaluation={"labels": ["click"], "resamples": 200},
            promotion={"min_groups": 5},
        )
        hours = hr.hour_range(hr.add(HOUR, -24), HELD_OUT[-1])
        fill(project, "samples", _samples, hours)
        fill(project, "outcomes", lambda hour: clicks(hour, lambda n: n % 4 == 0), hours)
        return cls(project)

    @property
    def registry(self) -> Registry:
        return Registry(self.project.tracking_uri, retries=0)

    @property
    def store(self) -> Store:
        return self.project.store()

    def settings(self) -> Settings:
        parsed = dict.fromkeys(("data", "warehouse", "catalog_uri", "tracking_uri"))
        arguments = iter(self.project.arguments())
        named = {key.strip("-").replace("-", "_"): value
                 for key, value in zip(arguments, arguments, strict=True)}  # fmt: skip
        return load_settings(argparse.Namespace(**{**parsed, **named}))

    def candidate(
        self, name: str, hour: str, *, worse: bool = False, alter: Alter = _same,
        column: str | None = None, golden: Callable[[pa.Table], pa.Table] | None = None,
    ) -> Version:  # fmt: skip
        """The version of ``hour``: good, or ``worse`` than chance, with its boosters altered, or
        with a column that only it knows. ``golden`` picks the rows that the mechanical check uses.
        """
        settings, store = self.settings(), self.store
        chosen = gbdt_plan(store, settings, name, hour)
        table = build(store, chosen.recipe(settings.open_source()))
        store.close()
        if worse:
            flipped = pc.subtract(1, table["label_click"].cast(pa.int8()))
            at = table.column_names.index("label_click")
            table = table.set_column(at, "label_click", flipped.cast(table["label_click"].type))
        spec = chosen.spec
        if column is not None:
            spec = replace(spec, dense=(*spec.dense, column))
            table = table.append_column(column, pa.array(np.zeros(table.num_rows)))
        model = _fitted(chosen, spec, table)
        model._adopt({task: alter(model._text(task)) for task in model.tasks})
        rows = golden(table) if golden else table.slice(0, 20)
        return _registered(self.registry, chosen, model, rows.select(list(spec.columns)))

    def champion(self, version: Version, hour: str) -> None:
        """Let ``version`` serve from ``hour`` on, as a decision of that hour would."""
        number, store = str(version.version), self.store
        row: dict[str, Any] = {
            "decision_id": f"{version.name}|{hour}|{number}", "hour": hour, "name": version.name,
            "action": "promote", "version": number, "champion": number, "previous": None,
            "reason": "the first", "evidence": {},
        }  # fmt: skip
        for stage in ("intent", "done"):
            promotions.append(store, row, stage)
        store.close()
        self.registry.set_alias(version.name, "champion", version.version)

    def serving(self, name: str) -> int | None:
        found = self.registry.alias(name, "champion")
        return None if found is None else found.version

    def log(self, name: str) -> list[tuple[str, str, str, str | None]]:
        """(hour, stage, action, champion) of every row of the promotion log."""
        store = self.store
        found = promotions.history(store, name)
        store.close()
        return [(row["hour"], row["stage"], row["action"], row["champion"]) for row in found]


def _fitted(chosen: Plan, spec: FeatureSpec, table: pa.Table) -> GBDTRanker:
    model = GBDTRanker(GBDTConfig.from_dict(chosen.config), spec)
    model.fit(*split(table), lambda _: None)
    return model


def _registered(registry: Registry, chosen: Plan, model: GBDTRanker, example: pa.Table) -> Version:
    hours = chosen.lineage.hours
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        model.save(folder)
        return registry.register(
            chosen.name, chosen.run_key, folder, model.spec, metrics={}, params={},
            tags={"code_version": "0.1.0", "run_hour": chosen.hour}, input_example=example,
            plots={}, description="", guard=lambda: None,
            handoff={
                "data_hour": hours[-1], "trained_hours": [hours[0], hours[-1]],
                "iceberg_snapshots": dict(chosen.lineage.snapshots),
            },
        )  # fmt: skip
