"""The same job on a Spark standalone cluster: a master and two workers leave the same tables.

The cluster's lie in a bucket, which its tasks read and write; those of this process in a folder.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.views import VIEWS
from jobs.support import blocks
from jobs.support.session import spark_session
from tests.jobs.test_build_samples import HOURS, TABLES, prepared
from tests.jobs.test_extract_features import ENDS, START, contents, filled, run, tables_of
from tests.object_store import BUCKET, ObjectStore
from tests.session import uses_spark

pytestmark = [*uses_spark, pytest.mark.timeout(900)]

HOST, WORKERS, PATIENCE_S = "127.0.0.1", 2, 120
LAST = hr.add(ENDS[1], 1)


class Cluster:
    """Spark's own processes, from the pip package, on free ports of the loopback address."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []

    def start(self, kind: str, *arguments: str) -> Path:
        log = self.folder / f"{kind.lower()}-{len(self.processes)}.log"
        home = Path(pyspark.__path__[0])
        command = [
            str(home / "bin" / "spark-class"),
            f"org.apache.spark.deploy.{kind.lower()}.{kind}",
        ]
        env = {**os.environ, **self.environment, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": HOST,
               "PYSPARK_PYTHON": sys.executable, "SPARK_DAEMON_MEMORY": "256m",
               "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}  # fmt: skip
        with log.open("wb") as output:
            self.processes.append(subprocess.Popen(
                [*command, "--host", HOST, "--port", "0", "--webui-port", "0", *arguments],
                env=env, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,  # a worker's executors belong to its group
            ))  # fmt: skip
        return log

    def wait_for(self, log: Path, pattern: str, count: int = 1) -> str:
        """The first group of ``pattern``, once the log holds it ``count`` times."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = re.findall(pattern, log.read_text())
            if len(found) >= count:
                return str(found[0])
            assert all(p.poll() is None for p in self.processes), log.read_text()[-3000:]
            time.sleep(0.2)
        raise AssertionError(f"{log.name} does not say {pattern!r}:\n{log.read_text()[-3000:]}")

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(30)


@pytest.fixture(scope="module")
def bucket(object_store: ObjectStore) -> Iterator[str]:
    """A place in the object store, which this process, and so its drivers, know how to reach."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.environment.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}/standalone"


@pytest.fixture(scope="module")
def master(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a master with two workers of a core each, who know the object store."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), object_store.environment)
    try:
        log = cluster.start("Master")
        url = cluster.wait_for(log, r"Starting Spark master at (spark://\S+)")
        for number in range(WORKERS):
            work = str(cluster.folder / f"work{number}")
            cluster.start("Worker", "--cores", "1", "--memory", "1g", "--work-dir", work, url)
        cluster.wait_for(log, r"(Registering worker)", WORKERS)
        yield url
    finally:
        cluster.stop()


def on(master: str, folder: Path, place: str) -> dict[tuple[str, str], tuple[int, str]]:
    """What a range and an hour alone leave, by table and hour, in the warehouse at ``place``."""
    store = filled(folder, warehouse=f"{place}/features")
    with spark_session("tests", {"spark.master": master, "spark.executor.memory": "700m"}) as spark:
        wait_for_executors(spark, 0 if master.startswith("local") else WORKERS)
        run(spark, store, START, hr.add(LAST, -1))
        run(spark, store, LAST, LAST)
        found = contents(store, START, LAST) | samples_on(
            spark, folder / "samples", f"{place}/samples"
        )
    store.close()
    return found


def samples_on(
    spark: SparkSession, folder: Path, warehouse: str
) -> dict[tuple[str, str], tuple[int, str]]:
    """What samples leave: of two hours that tasks can hold, and of two that none can."""
    folder.mkdir()
    made = prepared(folder, warehouse)
    made.build(spark, HOURS[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "TOGETHER", 20)
        made.build(spark, HOURS[2:])
    found = made.completions()
    made.store.close()
    return {(table, hour): done for table in found for hour, done in found[table].items()}


def wait_for_executors(spark: SparkSession, wanted: int) -> None:
    """Wait until ``wanted`` executors, besides the driver, have come."""
    java = spark.sparkContext._jsc
    assert java is not None
    deadline = time.monotonic() + PATIENCE_S
    while (found := java.sc().getExecutorMemoryStatus().size() - 1) != wanted:
        assert time.monotonic() < deadline, f"{found} executors, {wanted} wanted"
        time.sleep(0.2)


def test_a_cluster_with_a_bucket_changes_nothing(master: str, bucket: str, tmp_path: Path) -> None:
    for name in ("cluster", "local"):
        (tmp_path / name).mkdir()
    processes = multiprocessing.get_context("spawn")  # a process has one JVM, and that one master
    with processes.Pool(1, maxtasksperchild=1) as pool:
        here, there = tmp_path / "local", tmp_path / "cluster"
        asked = [(master, there, bucket), ("local[2]", here, str(here / "warehouse"))]
        on_cluster, on_this = pool.starmap(on, asked, chunksize=1)
    assert {table for table, _ in on_this} == {*TABLES, *(t for v in VIEWS for t in tables_of(v))}
    assert on_cluster == on_this
    assert not (there / "warehouse").exists()
