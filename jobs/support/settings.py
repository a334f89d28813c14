"""Settings: a YAML configuration, the environment, and the arguments, in rising precedence."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml

from feature_store.gates import GateError, GateRule, parse_gates
from feature_store.graph import GraphRules
from feature_store.ingestion import IngestRules
from feature_store.maintenance import MaintenanceRules
from feature_store.sources import open_source
from feature_store.sources.base import Source, SourceError
from feature_store.tables import Store

__all__ = [
    "EvaluationSettings",
    "PretrainSettings",
    "PromotionSettings",
    "Settings",
    "SettingsError",
    "TrainSettings",
    "load_settings",
]

_CONFIGURATIONS = Path(__file__).resolve().parents[2] / "conf"
T = TypeVar("T")


class SettingsError(ValueError):
    """Bad arguments or configuration (exit status 2)."""


@dataclass(frozen=True)
class TrainSettings:
    """What a training run reads and fits.

    Attributes:
        span_hours: the model of run H is fitted on [H - span, H).
        feature_service: what the model reads, by its name in ``SERVICES``.
        gbdt: fields of ``GBDTConfig``.
    """

    span_hours: int = 24
    feature_service: str = "ranking"
    gbdt: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PretrainSettings:
    """What the pre-training of the deep rankers reads and fits.

    Attributes:
        span_days: the model of day D is fitted on so many times 24 hours before D.
        feature_service: what the models read, by its name in ``SERVICES``.
        user_buckets, item_buckets, room_buckets: codes that identifiers are hashed into.
        models: by family, fields of its configuration.
    """

    span_days: int = 1
    feature_service: str = "deep_ranking"
    user_buckets: int = 2**16
    item_buckets: int = 2**15
    room_buckets: int = 2**12
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.span_days < 1:
            raise ValueError(f"span_days is {self.span_days}; it must be at least 1")
        for family, config in self.models.items():
            if not isinstance(config, Mapping):
                raise ValueError(f"models.{family} must be a mapping, got {config!r}")


@dataclass(frozen=True)
class EvaluationSettings:
    """How models are judged.

    Attributes:
        labels: judged labels; the first is the main one, by which models are promoted.
        grades: by label the grade, from 1, of a row that has it; the highest counts. With any,
            NDCG of the grades is told as label ``graded``.
        resamples: bootstrap resamples behind an interval.
        seed: of the bootstrap.
        lag_hours: how many hours back the offline evaluation of H looks, for the actions that are
            mature by then: one hour for stays and follows, a day for orders.
        spark_rows: rows above which hours are judged by Spark's tasks; below, a session would take
            longer to start than it saves.
    """

    labels: tuple[str, ...] = ("click", "long_view")
    grades: Mapping[str, int] = field(default_factory=dict)
    resamples: int = 1000
    seed: int = 7
    lag_hours: tuple[int, ...] = (1, 24)
    spark_rows: int = 2_000_000

    def __post_init__(self) -> None:
        wrong = {n: g for n, g in self.grades.items() if not (isinstance(g, int) and 1 <= g <= 30)}
        if wrong:
            raise ValueError(f"grades {wrong} must be whole numbers from 1 to 30")


@dataclass(frozen=True)
class PromotionSettings:
    """The rule by which a candidate becomes champion.

    Attributes:
        margin: how much worse, in NDCG@10, a candidate may be at the lower bound.
        min_groups: groups needed before a champion is ever replaced.
        pool_hours: held-out hours pooled.
    """

    margin: float = 0.01
    min_groups: int = 1000
    pool_hours: int = 24


@dataclass(frozen=True)
class Settings:
    """Everything a job needs to know, resolved."""

    source_name: str
    source_options: Mapping[str, Any]
    warehouse: str | None
    catalog_uri: str | None
    tracking_uri: str | None
    ingest: IngestRules
    gates: tuple[GateRule, ...]
    train: TrainSettings
    pretrain: PretrainSettings
    graph: GraphRules
    embedding: Mapping[str, Any]
    evaluation: EvaluationSettings
    promotion: PromotionSettings
    maintenance: MaintenanceRules
    spark: Mapping[str, str]
    scratch_folder: str | None = None

    def open_source(self) -> Source:
        """The configured source; reads nothing yet."""
        try:
            return open_source(self.source_name, dict(self.source_options))
        except SourceError as error:
            raise SettingsError(str(error)) from error

    def open_store(self) -> Store:
        """The warehouse and its catalog."""
        warehouse = _required(self.warehouse, "--warehouse", "RANKMILL_WAREHOUSE")
        uri = _required(self.catalog_uri, "--catalog-uri", "RANKMILL_CATALOG_URI")
        return Store(warehouse, uri)

    def tracking(self) -> str:
        """The address of MLflow."""
        return _required(self.tracking_uri, "--tracking-uri", "MLFLOW_TRACKING_URI")

    def sent(self) -> Settings:
        """These settings without the addresses that hold a password, for another machine."""
        catalog, tracking = (
            None if uri and urlsplit(uri).password else uri
            for uri in (self.catalog_uri, self.tracking_uri)
        )
        return replace(self, catalog_uri=catalog, tracking_uri=tracking)

    def received(self) -> Settings:
        """What was `sent`, with the addresses that this machine's own environment has."""
        catalog = self.catalog_uri or os.environ.get("RANKMILL_CATALOG_URI")
        tracking = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        return replace(self, catalog_uri=catalog, tracking_uri=tracking)

    def scratch(self) -> Path:
        """Where a killed run leaves what the next one goes on from, and rows lie that memory is not
        to hold: beside a warehouse that is a folder, unless RANKMILL_SCRATCH names another place.
        """
        if self.scratch_folder:
            return Path(self.scratch_folder).resolve()
        if self.warehouse and "://" not in self.warehouse:
            return Path(self.warehouse).resolve().parent / "scratch"
        return Path(tempfile.gettempdir()) / "rankmill-scratch"


def _required(value: str | None, option: str, variable: str) -> str:
    if not value:
        raise SettingsError(f"no value for {option}: pass it or set {variable}")
    return value


def _section(kind: type[T], document: Mapping[str, Any], name: str) -> T:
    """A configuration section as its dataclass; an unknown key or a wrong type is an error."""
    values = _mapping(document, name)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise SettingsError(
            f"configuration section {name!r} has unknown keys {unknown}; known: {sorted(known)}"
        )
    defaults = kind()
    cleaned: dict[str, Any] = {}
    for key, value in values.items():
        default = getattr(defaults, key)
        cleaned[key] = _as_type(value, default, f"{name}.{key}")
    try:
        return kind(**cleaned)
    except ValueError as error:
        raise SettingsError(f"configuration section {name!r}: {error}") from error


def _mapping(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section that somebody else checks."""
    values = document.get(name) or {}
    if not isinstance(values, Mapping):
        raise SettingsError(f"configuration section {name!r} must be a mapping, got {values!r}")
    return values


def _as_type(value: Any, default: Any, where: str) -> Any:
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = Mapping if isinstance(default, Mapping) else type(default)
    if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise SettingsError(f"configuration {where} must be {wanted.__name__}, got {value!r}")
    return value


_SECTIONS = (
    "source", "ingest", "gates", "train", "pretrain", "graph", "embedding", "evaluation",
    "promotion", "maintenance", "spark",
)  # fmt: skip


def load_settings(arguments: argparse.Namespace) -> Settings:
    """Read the configuration and overlay the environment and the arguments.

    Raises:
        SettingsError: for a file that is not there, an unknown key, a value of a wrong type.
    """
    environment = os.environ
    path = arguments.config or environment.get("RANKMILL_CONFIG")
    document = _read(Path(path) if path else _CONFIGURATIONS / "demo.yaml")
    unknown = sorted(set(document) - set(_SECTIONS))
    if unknown:
        raise SettingsError(f"{path}: unknown sections {unknown}; known: {list(_SECTIONS)}")
    source = document.get("source")
    if not isinstance(source, Mapping) or "name" not in source:
        raise SettingsError(f"{path}: section 'source' needs a 'name'")
    options = dict(source.get("options") or {})
    data = arguments.data or environment.get("RANKMILL_DATA")
    if data:
        options["path"] = data
    spark = {str(k): str(v) for k, v in (document.get("spark") or {}).items()}
    return Settings(
        source_name=str(source["name"]),
        source_options=options,
        warehouse=arguments.warehouse or environment.get("RANKMILL_WAREHOUSE"),
        catalog_uri=arguments.catalog_uri or environment.get("RANKMILL_CATALOG_URI"),
        tracking_uri=arguments.tracking_uri or environment.get("MLFLOW_TRACKING_URI"),
        ingest=_section(IngestRules, document, "ingest"),
        gates=_gates(document),
        train=_section(TrainSettings, document, "train"),
        pretrain=_section(PretrainSettings, document, "pretrain"),
        graph=_section(GraphRules, document, "graph"),
        embedding=_mapping(document, "embedding"),
        evaluation=_section(EvaluationSettings, document, "evaluation"),
        promotion=_section(PromotionSettings, document, "promotion"),
        maintenance=_section(MaintenanceRules, document, "maintenance"),
        spark=spark,
        scratch_folder=environment.get("RANKMILL_SCRATCH"),
    )


def _gates(document: Mapping[str, Any]) -> tuple[GateRule, ...]:
    """The gates of conf/gates.yaml, with what the configuration says otherwise."""
    sections = [_read(_CONFIGURATIONS / "gates.yaml")["gates"], document.get("gates") or {}]
    if not isinstance(sections[1], Mapping):
        raise SettingsError(f"configuration section 'gates' must be a mapping, got {sections[1]!r}")
    try:
        return parse_gates(*sections)
    except GateError as error:
        raise SettingsError(str(error)) from error


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise SettingsError(f"no configuration at {path}; pass --config or set RANKMILL_CONFIG")
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, Mapping):
        raise SettingsError(f"{path} must hold a mapping of sections, got {document!r}")
    return document
