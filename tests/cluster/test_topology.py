"""The services of docker/compose.yaml, all of them, with an hour and a day through Airflow.

Jobs run on Spark's cluster, tables and models lie in the object store, and nobody comes in without
a secret, of which none is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import mlflow
import psutil
import pyarrow.fs as pafs
import pytest

from feature_store import hours as hr
from feature_store.sources.simulator import MarketConfig, write_simulation
from feature_store.sources.simulator.config import TIME_ZONE
from local.airflow_api import AirflowApi, DagRun, Task
from local.announce import announce
from local.processes import marked
from models.registry import Registry
from tests.cluster.compose import REPOSITORY
from tests.cluster.topology import Topology, topology
from tests.session import uses_spark

pytestmark = [*uses_spark, pytest.mark.timeout(1800)]

PATIENCE_S = 1200
# Two business days: the models of the second are fitted on the first. Airflow runs its last hour.
FIRST, DAY = "2026-11-08T16", "2026-11-10"
LAST = hr.add(FIRST, 47)
MARKET = MarketConfig(  # as few rows as leave the fifty follows that a model of a day asks for
    start=FIRST, requests_per_hour=75, users=2000, items=150, rooms=40, rooms_share=0.5
)
SETTINGS = {"CONFIG": "conf/demo.yaml", "START_HOUR": LAST, "END_HOUR": LAST,
            "TIME_ZONE": TIME_ZONE, "SPARK_WORKER_MEMORY": "2g",
            "SPARK_DRIVER_MEMORY": "512m", "SPARK_EXECUTOR_MEMORY": "512m"}  # fmt: skip
DAGS = ("hourly_features", "hourly_gbdt", "daily_graph_embedding", "daily_pretraining")
MODELS = ("gbdt_ranker", "mmoe_ranker", "live_transformer", "metapath2vec")
ON_SPARK = (
    "bootstrap.py",
    f"build_samples {LAST}",
    f"extract_features {LAST}",
    f"build_graph {DAY}",
)


@dataclass(frozen=True)
class Done:
    """The running services after an hour and a day, and what they were seen to do."""

    services: Topology
    bootstrapped: subprocess.CompletedProcess[str]
    runs: dict[str, DagRun]
    tasks: dict[tuple[str, str], Task]
    words: set[str]
    intruder: subprocess.Popen[bytes]

    def store(self, secret: str | None = None) -> pafs.S3FileSystem:
        """A client of the object store."""
        secrets = self.services.secrets
        return pafs.S3FileSystem(
            endpoint_override=f"http://{self.services.places.address('object-store', '8333')}",
            access_key=secrets["s3_access_key"], region="us-east-1",
            secret_key=secret or secrets["s3_secret_key"],
        )  # fmt: skip

    def objects(self, folder: str) -> list[str]:
        """The names of all objects below a folder."""
        found = self.store().get_file_info(pafs.FileSelector(folder, recursive=True))
        return [entry.path for entry in found if entry.type == pafs.FileType.File]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """The services, bootstrapped up to the last hour; that and its day were run by Airflow."""
    folder = tmp_path_factory.mktemp("market")
    write_simulation(MARKET, folder / "data", 48, lambda *_: None, with_truth=False)
    settings = {**SETTINGS, "DATA_FOLDER": str(folder / "data")}
    with topology(settings) as services, submitted_without_the_secret(services, folder) as intruder:
        hours = ("--from-hour", FIRST, "--to-hour", hr.add(LAST, -1), "--accept", "a small market")
        made = services.run("airflow-scheduler", "spark-submit", "jobs/bootstrap.py", *hours)
        assert made.returncode == 0, f"{made.stdout[-3000:]}\n{made.stderr[-3000:]}"
        api = services.airflow()
        for dag in DAGS:
            api.unpause(dag)
        announce(api, hr.hour_range(hr.add(FIRST, 24), hr.add(LAST, -1)), TIME_ZONE)
        words: set[str] = set()
        runs = finished(services, api, words)
        tasks = {(run.dag, task.name): task for run in runs.values() for task in api.tasks(run)}
        yield Done(services, made, runs, tasks, words, intruder)


def finished(services: Topology, api: AirflowApi, words: set[str]) -> dict[str, DagRun]:
    """The one run of each DAG, all done; meanwhile ``words`` gets what `ps` shows."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        words.update(w for pid in marked(services.file.mark) for w in command_line(pid))
        runs = {run.dag: run for dag in DAGS for run in api.runs(dag)}
        for run in runs.values():
            bad = [t for t in api.tasks(run) if t.state in ("failed", "up_for_retry")]
            ends = "\n".join(line for task in bad for line in api.log_tail(run, task, 10))
            assert not bad, f"{run.dag}: {[task.name for task in bad]}\n{ends}"
        if runs.keys() == set(DAGS) and all(run.state == "success" for run in runs.values()):
            return runs
        assert time.monotonic() < deadline, {dag: run.state for dag, run in runs.items()}
        time.sleep(1)


def command_line(pid: int) -> list[str]:
    """What everybody on the machine can read of a process; nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


@contextmanager
def submitted_without_the_secret(
    services: Topology, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody who can reach Spark's master, and gives up some time later."""
    script = folder / "intruder.py"
    script.write_text("from pyspark import SparkContext\nprint(SparkContext().range(9).sum())\n")
    master = f"spark://{services.places.address('spark-master', '7077')}"
    submit = [str(Path(sys.executable).with_name("spark-submit")), "--master", master]
    conf = ["--name", "intruder", "--conf", "spark.ui.enabled=false", str(script)]
    env = {"PATH": os.environ["PATH"], "SPARK_LOCAL_IP": "127.0.0.1", "HOME": str(folder)}
    with (folder / "intruder.log").open("wb") as log:
        child = subprocess.Popen(
            [*submit, *conf], env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def answer(url: str) -> int:
    """The status of a request by nobody in particular."""
    try:
        with urllib.request.urlopen(url, timeout=30) as found:  # noqa: S310
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_an_hour_and_a_day_are_green(done: Done) -> None:
    assert {dag: run.hour for dag, run in done.runs.items()} == {
        dag: DAY if dag.startswith("daily") else LAST for dag in DAGS
    }
    assert {(task.state, task.attempt) for task in done.tasks.values()} == {("success", 1)}


def test_tables_lie_in_the_store(done: Done) -> None:
    objects = done.objects("rankmill/warehouse")
    for table in ("events", "samples", "features_item", "edges", "node_embeddings", "promotions"):
        assert any(f"/{table}/" in name and ".parquet" in name for name in objects), table
    for hour in (FIRST, LAST):
        assert any("/samples/" in name and hour in name for name in objects)
    script = (
        "import json, os; from feature_store.tables import Store; "
        "store = Store(os.environ['RANKMILL_WAREHOUSE'], os.environ['RANKMILL_CATALOG_URI']); "
        f"print(json.dumps(store.readable_hours('samples', '{FIRST}', '{LAST}')))"
    )
    found = done.services.run("airflow-scheduler", "python", "-W", "ignore", "-c", script)
    assert json.loads(found.stdout) == hr.hour_range(FIRST, LAST), found.stderr


def test_champions_and_their_files_lie_in_the_store(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign_in(done, monkeypatch)
    address = done.services.places.address("mlflow", "5000")
    registry = Registry(f"http://{address}")
    for name in MODELS:
        champion = registry.alias(name, "champion")
        assert champion is not None, name
    newest = registry.versions("gbdt_ranker")[-1]
    assert newest.tags["run_hour"] == LAST
    assert any("handoff.json" in name for name in done.objects("rankmill/artifacts"))


def test_executors_ran_on_the_worker(done: Done) -> None:
    page = f"http://{done.services.places.address('spark-master', '8081')}/json/"
    with urllib.request.urlopen(page) as found:
        state: dict[str, Any] = json.load(found)
    apps = {app["name"]: app for app in state["completedapps"]}
    assert set(ON_SPARK) <= set(apps)
    folder = done.services.places.root("spark-worker") / "tmp" / "spark"
    assert {app.name for app in folder.iterdir()} == {app["id"] for app in apps.values()}
    assert all((app / "0" / "stderr").exists() for app in folder.iterdir())


def test_executors_find_catalog_and_registry_by_themselves(done: Done) -> None:
    """An evaluation by Spark's tasks, to which no address with a password is sent."""
    folder = done.services.places.root("airflow-scheduler") / "tmp"
    small = (REPOSITORY / "conf" / "demo.yaml").read_text()
    config = folder / "spark.yaml"
    config.write_text(small.replace("evaluation:\n", "evaluation:\n  spark_rows: 0\n"))
    hours = ("--from-hour", LAST, "--to-hour", LAST, "--models", "gbdt_ranker")
    command = ("python", "jobs/evaluate.py", "--config", str(config), *hours)
    found = done.services.run("airflow-scheduler", *command)
    assert found.returncode == 0, f"{found.stdout[-2000:]}\n{found.stderr[-3000:]}"
    assert " in 1 tasks of Spark" in found.stdout


def test_nobody_comes_in_without_a_secret(done: Done) -> None:
    places = done.services.places
    store = f"http://{places.address('object-store', '8333')}"
    assert [answer(f"{store}/{path}") for path in ("", "rankmill", "rankmill/x")] == [403] * 3
    with pytest.raises(OSError, match="SIGNATURE_DOES_NOT_MATCH"):
        done.store("wrong").get_file_info(pafs.FileSelector("rankmill"))
    mlflow = f"http://{places.address('mlflow', '5000')}"
    assert answer(f"{mlflow}/api/2.0/mlflow/registered-models/search?max_results=1") == 401
    airflow = f"http://{places.address('airflow-api', '8080')}"
    assert answer(f"{airflow}/api/v2/dags") == 401
    with grpc.insecure_channel(places.address("object-store", "18333")) as channel:
        put = channel.unary_unary("/messaging_pb.SeaweedS3IamCache/PutIdentity")
        with pytest.raises(grpc.RpcError) as refused:
            put(b"\n\x02\n\x00", timeout=30)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert done.intruder.wait(120) != 0


def test_every_port_is_heard_on_this_machine_alone(done: Done) -> None:
    heard = {address for pid in marked(done.services.file.mark) for address in listening(pid)}
    assert len(heard) > 10
    assert {host for host, _ in heard} == {"127.0.0.1"}


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses that a process listens on."""
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return set()
    return {
        (entry.laddr.ip.removeprefix("::ffff:"), entry.laddr.port)
        for entry in found
        if entry.status == psutil.CONN_LISTEN
    }


def test_no_secret_is_told(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a log, a summary, a tag, a page's address, nor in what `ps` shows."""
    sign_in(done, monkeypatch)
    services = done.services
    told = {"command lines": "\n".join(done.words), "summary": done.bootstrapped.stdout}
    told["bootstrap"] = done.bootstrapped.stderr
    folders = [services.folder / "logs", services.folder / "volumes" / "airflow-logs",
               services.folder / "volumes" / "metrics",
               services.places.root("spark-worker") / "tmp" / "spark"]  # fmt: skip
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                told[str(path)] = path.read_text(errors="replace")
    told |= registered(f"http://{services.places.address('mlflow', '5000')}")
    for name in [*done.objects("rankmill/artifacts"), *metadata(done)]:
        told[name] = done.store().open_input_stream(name).readall().decode(errors="replace")
    assert len(told) > 100
    for name, secret in services.secrets.items():
        for form in {secret, quote(secret, safe="")}:
            assert [place for place, text in told.items() if form in text] == [], name


def metadata(done: Done) -> list[str]:
    return [name for name in done.objects("rankmill/warehouse") if name.endswith(".metadata.json")]


def registered(address: str) -> dict[str, str]:
    """All that MLflow says of every run and version: parameters, tags, addresses."""
    client = mlflow.MlflowClient(address)
    experiments = [found.experiment_id for found in client.search_experiments()]
    runs = [run for e in experiments for run in client.search_runs([e])]
    versions = client.search_model_versions()
    assert runs and versions
    said = [f"{version!r} {version.tags}" for version in versions]
    return {
        "runs": json.dumps([run.to_dictionary() for run in runs]),
        "versions": "\n".join(said),
    }


def sign_in(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = done.services.secrets["mlflow_admin_password"]
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "rankmill")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
