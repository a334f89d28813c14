"""The jobs on a small simulated store: what each makes of an hour, or of the business day that ends
with it, and how to take that away.

A job's state is what a reader could see of it, by name: the hour as its tables' completions and
files say it, a model, an alias. Whatever happened to the job, its state is a part of the
undisturbed one, where a table is there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue

from feature_store import hours as hr
from feature_store.schemas import ENTITY_TABLES, TABLES
from feature_store.views import VIEWS
from models.registry import mlflow
from tests.e2e.stack import BESIDE_SAMPLES, EXTRACTED, REPOSITORY, Running

__all__ = [
    "EMBEDDING",
    "FIRST",
    "HOUR",
    "HOURS",
    "JOBS",
    "RANKER",
    "Job",
    "State",
    "aliases_of",
    "ledger_of",
]

# 24 hours to train on before it; it also ends a business day, so that day tiles and every living
# key are written as well.
HOUR = "2026-11-09T15"
FIRST = hr.add(HOUR, -24)
HOURS = 25
RANKER = "gbdt_ranker"
DATE = "2026-11-09"  # the business day, in Asia/Shanghai
EMBEDDING = "metapath2vec"

State = dict[str, str]


@dataclass(frozen=True)
class Job:
    """A job of the hour, or of the day.

    Attributes:
        tables: what it commits.
        spark: whether it runs through spark-submit, in a JVM.
        ranged: whether it takes many hours at once.
        empty: those of ``tables`` that may have no rows of the hour.
    """

    name: str
    tables: tuple[str, ...] = ()
    spark: bool = False
    ranged: bool = False
    empty: frozenset[str] = frozenset()

    @property
    def ways(self) -> tuple[str, ...]:
        """Whom a kill can strike."""
        return ("jvm", "python", "group") if self.spark else ("python", "group")

    @property
    def time(self) -> tuple[str, str]:
        """The argument that says what it is to make."""
        return ("--hour", HOUR)

    def model(self, _attempt: str) -> str | None:
        """The registered name to pass, for jobs on models."""
        return None

    def command(self, run: Running, attempt: str = "", since: str | None = None) -> list[str]:
        """Its command line for the hour, as the scheduler starts it; or for all ``since`` one."""
        name = self.model(attempt)
        hours = ("--from-hour", since, "--to-hour", HOUR) if since else self.time
        arguments = [*hours, *(["--name", name] if name else [])]
        if self.spark:
            return run.submit(self.name, *arguments)
        return [sys.executable, str(REPOSITORY / "jobs" / f"{self.name}.py"), *arguments]

    def withdraw(self, run: Running) -> None:
        """Take away what it made of the hour, as if it had never run."""
        for table in self.tables:
            run.store.ledger.forget(table, [HOUR])
            run.store.commit_slice(TABLES[table].schema.empty_table(), table, {"hour": HOUR})

    def state(self, run: Running, _attempt: str = "") -> State:
        """What a reader could see of it: completions, and files of them or of no completion."""
        found = {
            f"{table} completed": f"{rows} rows, {content}"
            for table, (rows, content) in run.contents(HOUR, self.tables).items()
        }
        for table in self.tables:
            rows = run.store.read(table, [HOUR])
            if rows.num_rows:
                found[f"{table} rows"] = digest(rows)
        return found

    def settle(self, run: Running) -> None:
        """Do what the next job of the hour would, so that the store is whole again."""

    def left_over(self, _run: Running) -> str | None:
        """What a rerun should have cleared away and did not."""
        return None


class Ingestion(Job):
    """Its hour counts for nobody until a gate has judged it."""

    def settle(self, run: Running) -> None:
        run.store.ledger.validate("events", {HOUR: True})


class Validation(Job):
    """It marks the hour of events, and logs a page."""

    def withdraw(self, run: Running) -> None:
        super().withdraw(run)
        ledger = run.store.ledger
        events = ledger.completions("events", HOUR, HOUR)[HOUR]
        ledger.complete([replace(events, validated=None)])

    def state(self, run: Running, _attempt: str = "") -> State:
        verdict = run.completions(HOUR, ["events"])["events"].validated
        marked = {} if verdict is None else {"events validated": str(verdict)}
        return super().state(run) | marked

    def left_over(self, run: Running) -> str | None:
        """The hour has one page, whatever earlier tries had begun."""
        return not_one_page(run, "gates", f"{HOUR}:{HOUR}")


class Training(Job):
    """Every try registers a name of its own, so that none finds the model of another."""

    def model(self, attempt: str) -> str:
        return f"{RANKER}_{attempt}" if attempt else RANKER

    def state(self, run: Running, attempt: str = "") -> State:
        tags = ("tree_version", "data_hour", "feature_spec_sha", "training_set_sha")
        found = run.registry.versions(self.model(attempt))
        texts = [" ".join(version.tags[tag] for tag in tags) for version in found]
        return {"versions": " and ".join(texts)} if texts else {}


class Promotion(Job):
    """Its rows lie in no hour: an intent, then the alias, then the decision as done."""

    def withdraw(self, run: Running) -> None:
        if run.store.read_all(self.tables[0]).num_rows:
            run.store.iceberg(self.tables[0]).delete(AlwaysTrue())
        client = mlflow.MlflowClient(run.env["MLFLOW_TRACKING_URI"])
        client.delete_registered_model_alias(RANKER, "champion")

    def state(self, run: Running, _attempt: str = "") -> State:
        rows = run.store.read_all(self.tables[0]).drop_columns(["decided_at"])
        found: dict[str, list[str]] = {}
        for row in rows.to_pylist():
            found.setdefault(row["stage"], []).append(repr(row))
        champion = run.registry.alias(RANKER, "champion")
        alias = {} if champion is None else {"champion": str(champion.version)}
        return {
            f"promotions {stage}": " and ".join(texts) for stage, texts in found.items()
        } | alias


class Graph(Job):
    """It commits a day's edges under the last hour, and logs a page."""

    @property
    def time(self) -> tuple[str, str]:
        return ("--date", DATE)

    def left_over(self, run: Running) -> str | None:
        """The day has one page, whatever earlier tries had begun."""
        return not_one_page(run, "graph", DATE)


class Embedding(Job):
    """It commits a day's vectors under the last hour, and registers them."""

    @property
    def time(self) -> tuple[str, str]:
        return ("--date", DATE)

    def withdraw(self, run: Running) -> None:
        super().withdraw(run)
        client = mlflow.MlflowClient(run.env["MLFLOW_TRACKING_URI"])
        for version in run.registry.versions(EMBEDDING):
            client.delete_model_version(EMBEDDING, str(version.version))

    def state(self, run: Running, attempt: str = "") -> State:
        tags = ("data_hour", "embedding_version", "feature_spec_sha", "run_key")
        found = run.registry.versions(EMBEDDING)
        texts = [" ".join(version.tags[tag] for tag in tags) for version in found]
        versions = {"versions": " and ".join(texts)} if texts else {}
        return super().state(run, attempt) | versions


# In the order in which one needs the other over a range of hours.
JOBS: tuple[Job, ...] = (
    Ingestion("ingest_events", ("events", "quarantine", *ENTITY_TABLES), ranged=True,
              empty=frozenset(ENTITY_TABLES)),
    Validation("validate_events", ("gate_results",), ranged=True),
    Job("extract_features", (*EXTRACTED, *(v.day_counts_table for v in VIEWS)), True, ranged=True),
    Job("build_samples", ("samples", *BESIDE_SAMPLES), True, ranged=True),
    Training("train_gbdt"),
    Job("evaluate", ("evaluations", "evaluation_groups")),
    Promotion("promote", ("promotions",)),
    Graph("build_graph", ("edges",), True),
    Embedding("embed_graph", ("node_embeddings",)),
)  # fmt: skip


def not_one_page(run: Running, experiment: str, name: str) -> str | None:
    """What pages of ``name`` there are, unless it is a single finished one."""
    client = mlflow.MlflowClient(run.env["MLFLOW_TRACKING_URI"])
    number = client.get_experiment_by_name(experiment).experiment_id
    pages = client.search_runs([number], f"tags.run_key LIKE '{experiment}:%:{name}'")
    states = [page.info.status for page in pages]
    return None if states == ["FINISHED"] else f"pages of {name}: {states}"


def digest(rows: pa.Table) -> str:
    """One text for the same rows in any order, from what the files hold."""
    columns = [
        (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        for column in rows.columns
    ]
    lines = sorted(map(repr, zip(*columns, strict=True)))
    return f"{len(lines)} rows, {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def ledger_of(run: Running, jobs: Iterable[Job]) -> Mapping[tuple[str, str], tuple[object, ...]]:
    """Rows, content and verdict of every hour of the tables of ``jobs``."""
    return {
        (table, hour): (done.rows, done.content_hash, done.validated)
        for job in jobs
        for table in job.tables
        for hour, done in run.store.ledger.completions(table, FIRST, HOUR).items()
    }


def aliases_of(run: Running, names: Iterable[str]) -> Mapping[tuple[str, str], object]:
    """The version that every alias of the models ``names`` points to."""
    client = mlflow.MlflowClient(run.env["MLFLOW_TRACKING_URI"])
    return {
        (name, alias): str(version)
        for name in names
        for alias, version in client.get_registered_model(name).aliases.items()
    }
