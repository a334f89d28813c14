"""Plans: what the model of a name and hour is fitted on, known before any row is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from feature_store import hours as hr
from feature_store.embedding_sets import TABLE as EMBEDDINGS_TABLE
from feature_store.embedding_sets import Space, embedding_hours, newest_space
from feature_store.labels import LABELS, label_column
from feature_store.services import FeatureService, ServiceError, feature_service
from feature_store.sources.base import Source
from feature_store.tables import Store
from feature_store.training_set import RECIPE_LABELS, Lineage, Recipe, lineage
from jobs.support.deep_features import POSITION, deep_spec, reading
from jobs.support.promotions import champion_before
from jobs.support.settings import Settings, SettingsError
from models import MODELS, FeatureSpec, SparseColumn
from models.base import ConfigError, SpecError
from models.gbdt_config import GBDTConfig
from models.registry import Registry, Version

__all__ = [
    "DEEP_FAMILIES",
    "DEFAULT_NAME",
    "MIN_HOURS",
    "Plan",
    "find_candidate",
    "gbdt_plan",
    "is_daily",
    "plan_of",
    "pretraining_plan",
    "registered_name",
]

DEFAULT_NAME: Final = "gbdt_ranker"
MIN_HOURS: Final = 24
"""With fewer complete hours nothing is trained, evaluated or promoted."""

DEEP_FAMILIES: Final = tuple(family for family in MODELS if family != "gbdt")
"""The models of the zoo that are pre-trained by day."""

_DAY: Final = 24
_JOBS: Final = {"live_transformer": "pretrain_transformer"}


@dataclass(frozen=True)
class Plan:
    """What the model of an hour is fitted on, known from the catalog before any row is read.

    Attributes:
        hour: the model knows what arrived before its start.
        config: the model's configuration, complete; ``section`` is where it was read.
        tasks: the labels that the fit reads.
        command: what makes the version.
        warm: version of ``name`` that the fit starts from; None for one that starts from nothing.
        earlier: lineages as they were before each of the newest days was embedded. A day's vectors
            may arrive between the fit and its evaluation.
    """

    name: str
    family: str
    hour: str
    first: str
    service: FeatureService
    lineage: Lineage
    config: Mapping[str, Any]
    section: str
    tasks: tuple[str, ...]
    spec: FeatureSpec
    command: str
    warm: str | None = None
    earlier: tuple[Lineage, ...] = ()

    @property
    def run_key(self) -> str:
        """Name, hour, configuration and content of the hours read: the same key, the same model."""
        known = {"config": self.config, "spec": self.spec.sha}
        started = {"warm": self.warm} if self.warm is not None else {}
        config = json.dumps({**known, **started}, default=dict, sort_keys=True)
        sha = hashlib.sha256(config.encode()).hexdigest()
        return f"{self.name}|{self.hour}|{sha[:12]}|{self.lineage.content_sha[:12]}"

    @property
    def complete(self) -> bool:
        """Whether enough hours are there to train at all."""
        return len(self.lineage.hours) >= MIN_HOURS

    def shortage(self) -> str:
        """Why nothing is trained, for the summary."""
        return (
            f"{len(self.lineage.hours)} complete hours before {self.hour}; "
            f"{MIN_HOURS} are needed to train, evaluate and promote"
        )

    def recipe(self, source: Source) -> Recipe:
        """What the rows are made of.

        Raises:
            SettingsError: for a task whose actions the source does not declare.
        """
        known = [n for n, label in LABELS.items() if label.declared(source.windows)]
        absent = [label_column(task) for task in self.tasks if task not in known]
        if absent:
            raise SettingsError(
                f"source {source.name} declares no action for {absent}; "
                f"{self.section} can read {sorted(known)}"
            )
        service = self.service
        return Recipe(
            self.hour, service.name, service.columns(), dict(source.windows), self.lineage,
            self._labels(), tuple(view.name for view in service.sequence_views()),
            service.vectors, service.similarities, source.time_zone,
        )  # fmt: skip

    def _labels(self) -> tuple[str, ...]:
        """The tasks' labels; trees keep to the usual ones, which their digests were made with."""
        if self.family != "gbdt":
            return self.tasks
        return (*RECIPE_LABELS, *(task for task in self.tasks if task not in RECIPE_LABELS))


def gbdt_plan(store: Store, settings: Settings, name: str, hour: str) -> Plan:
    """The training run of ``hour``: [hour - span, hour), cut at the start of ``hour``.

    Unless it retrains, it starts from the champion of the moment before ``hour``, if there is one.

    Raises:
        SettingsError: for a configuration that GBDTConfig refuses, or an unknown feature service.
    """
    train = settings.train
    section = "train.gbdt"
    config = _checked(section, lambda: GBDTConfig.from_dict(dict(train.gbdt)))
    service = _service("train.feature_service", train.feature_service)
    spec = FeatureSpec(
        dense=(*service.dense(), *service.similarities),
        sparse=tuple(SparseColumn(column, buckets) for column, buckets in service.sparse()),
        labels=tuple(label_column(label) for label in config.reads),
        training_only=(POSITION,) if config.debias == "position" else (),
    )
    first = hr.add(hour, -train.span_hours)
    service = replace(service, sequences=(), vectors=())  # trees read none
    origin, *earlier = _lineages(store, first, hour, service, settings.open_source().time_zone)
    command = f"train_gbdt.py --name {name} --hour {hour}"
    champion = None if config.way == "retrain" else champion_before(store, name, hour)
    return Plan(
        name, "gbdt", hour, first, service, origin, config.to_dict(), section, config.reads, spec,
        command, champion, tuple(earlier),
    )  # fmt: skip


def _lineages(
    store: Store, first: str, hour: str, service: FeatureService, time_zone: str
) -> list[Lineage]:
    """What samples of [first, hour) read; then, as it was before the last of its days was
    embedded, before the one before that, ..."""
    last = hr.add(hour, -1)
    origin = lineage(store, first, last, hour, service, time_zone)
    fewer = range(len(origin.embedding_hours) - 1, -1, -1)
    return [origin, *(lineage(store, first, last, hour, service, time_zone, n) for n in fewer)]


def registered_name(family: str) -> str:
    """The name under which a family of the zoo is registered."""
    return family if family == "live_transformer" else f"{family}_ranker"


def is_daily(name: str) -> bool:
    """Whether models of ``name`` are pre-trained by day; any other name is of hourly trees."""
    return name in _NAMES


_NAMES: Final = {registered_name(family): family for family in DEEP_FAMILIES}


def pretraining_plan(
    store: Store, settings: Settings, family: str, hour: str, from_scratch: bool = False
) -> Plan:
    """The pre-training of the day that starts with ``hour``, on the days before it.

    It starts from the champion of the moment before ``hour``, if there is one.

    Raises:
        SettingsError: for a configuration that the model refuses, or an unknown feature service.
    """
    pretrain = settings.pretrain
    unknown = sorted(set(pretrain.models) - set(DEEP_FAMILIES))
    if unknown:
        raise SettingsError(
            f"configuration pretrain.models names {unknown}; known: {sorted(DEEP_FAMILIES)}"
        )
    kind: Any = MODELS[family]  # those that are pre-trained are built from plain values
    section = f"pretrain.models.{family}"
    given = dict(pretrain.models.get(family, {}))
    service = _service("pretrain.feature_service", pretrain.feature_service)
    tasks = _checked(section, lambda: kind.config_tasks(given))
    labels = [label_column(task) for task in tasks]
    first = hr.add(hour, -_DAY * pretrain.span_days)
    zone = settings.open_source().time_zone
    space = _space(store, service, first, hour, zone)
    offered = _checked("pretrain", lambda: deep_spec(service, labels, pretrain, space))
    model = _checked(section, lambda: kind.build(given, offered))
    service = reading(service, [model.spec])
    origin, *earlier = _lineages(store, first, hour, service, zone)
    name = registered_name(family)
    command = f"{_JOBS.get(family, 'pretrain_mmoe')}.py --model {family} --hour {hour}"
    champion = None if from_scratch else champion_before(store, name, hour)
    return Plan(
        name, family, hour, first, service, origin, model.config_dict(), section, tuple(tasks),
        model.spec, command, champion, tuple(earlier),
    )  # fmt: skip


def _space(
    store: Store, service: FeatureService, first: str, hour: str, time_zone: str
) -> Space | None:
    """The space of the newest node vectors that samples of [first, hour) have."""
    if not service.vectors:
        return None
    embedded = embedding_hours(store, first, hr.add(hour, -1), time_zone)
    return newest_space(store, embedded, store.snapshot_id(EMBEDDINGS_TABLE))


def plan_of(store: Store, settings: Settings, name: str, hour: str) -> Plan:
    """The plan of whatever is registered as ``name``."""
    if is_daily(name):
        return pretraining_plan(store, settings, _NAMES[name], hour)
    return gbdt_plan(store, settings, name, hour)


def find_candidate(registry: Registry, chosen: Plan) -> Version | None:
    """The version that ``chosen`` made, whether it started from the champion or from nothing, and
    whether or not the newest embedded days were there by then."""
    plans = [replace(chosen, lineage=known) for known in (chosen.lineage, *chosen.earlier)]
    keys = [key for plan in plans for key in (plan.run_key, replace(plan, warm=None).run_key)]
    for key in dict.fromkeys(keys):
        found = registry.find(chosen.name, key)
        if found is not None:
            return found
    return None


def _checked(where: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (ConfigError, SpecError) as error:
        raise SettingsError(f"configuration {where}: {error}") from error


def _service(where: str, name: str) -> FeatureService:
    try:
        return feature_service(name)
    except ServiceError as error:
        raise SettingsError(f"configuration {where}: {error}") from error
