"""What a small store lies in, and what runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from local.services import AIRFLOW_PARTS
from tests.cluster.test_standalone import Cluster
from tests.e2e.stack import REPOSITORY, Running
from tests.faults.hourly import HOUR
from tests.object_store import BUCKET, ObjectStore

__all__ = ["WORLDS", "Airflow", "Bucket", "Folder", "SparkCluster"]


class Folder:
    """A folder, on a small file system of its own where one can be mounted here."""

    SIZE: Final = "96m"

    def __init__(self, run: Running) -> None:
        self.run = run
        self.warehouse = Path(run.env["RANKMILL_WAREHOUSE"])
        self.small = False
        """Whether the warehouse lies on a file system of its own."""

    def begin(self) -> None:
        """Make what the store needs before anything is written."""
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.SIZE},mode=0755", "rankmill-faults"]
        self.small = _quietly([*mount, str(self.warehouse)])

    def end(self) -> None:
        """Take it away again."""
        if self.small:
            _quietly(["umount", "--lazy", str(self.warehouse)])


def _quietly(command: list[str]) -> bool:
    """Whether ``command`` is there and does what it is asked."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


class Bucket(Folder):
    """A bucket behind the S3 protocol, of a server of its own."""

    def __init__(self, run: Running) -> None:
        super().__init__(run)
        self.server = ObjectStore(run.folder / "objects")
        self._before = {name: os.environ.get(name) for name in self.server.environment}

    def begin(self) -> None:
        self.server.start()
        warehouse = f"s3://{BUCKET}/warehouse"
        self.run.env.update({**self.server.environment, "RANKMILL_WAREHOUSE": warehouse})
        os.environ.update(self.server.environment)  # the harness looks into the store itself

    def end(self) -> None:
        self.server.stop()
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class SparkCluster(Folder):
    """A folder, and a standalone cluster of two workers for the jobs on Spark."""

    WORKERS: Final = 2

    def __init__(self, run: Running) -> None:
        super().__init__(run)
        self.cluster = Cluster(run.folder / "cluster", {})

    def begin(self) -> None:
        super().begin()
        self.cluster.folder.mkdir()
        self.log = self.cluster.start("Master")
        self.master = self.cluster.wait_for(self.log, r"Starting Spark master at (spark://\S+)")
        for _ in range(self.WORKERS):
            self.start_worker()
        self.run.env["RANKMILL_SPARK_MASTER"] = self.master
        settings = Path(self.run.env["SPARK_CONF_DIR"]) / "spark-defaults.conf"
        with settings.open("a") as file:
            file.write("\nspark.executor.memory 700m\nspark.executor.cores 1\n")

    def start_worker(self) -> None:
        """Start a worker of one core, and wait until the master knows it."""
        known = self.log.read_text().count(_REGISTERING)
        work = str(self.cluster.folder / f"work{known}")
        given = ("--cores", "1", "--memory", "1g", "--work-dir", work, self.master)
        self.cluster.start("Worker", *given)
        self.cluster.wait_for(self.log, f"({_REGISTERING})", known + 1)

    def kill_worker(self) -> None:
        """SIGKILL to the worker that was started last, and to its executors."""
        worker = self.cluster.processes.pop()
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    def end(self) -> None:
        self.cluster.stop()
        super().end()


_REGISTERING: Final = "Registering worker"


class Airflow(Folder):
    """A folder, and Airflow with the real DAGs, which schedules the last hour."""

    DAG: Final = "hourly_features"

    def begin(self) -> None:
        super().begin()
        dags = REPOSITORY / "dags"
        self.run.env.update({
            "RANKMILL_START_HOUR": HOUR, "RANKMILL_END_HOUR": HOUR,
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(dags / "plugins"),
        })  # fmt: skip
        migrate = [str(Path(sys.executable).with_name("airflow")), "db", "migrate"]
        subprocess.run(migrate, env=self.run.env, check=True, capture_output=True)
        services = self.run.services
        services.start_airflow(self.run.env)
        services.wait(services.airflow_ready, "Airflow", 300)
        services.airflow.set_pools(json.loads((dags / "pools.json").read_text()))
        services.wait(lambda: self.DAG in services.airflow.dags(), "the DAG", 300)

    def start_scheduler(self) -> None:
        """Start the scheduler, anew after a kill."""
        name = "airflow-scheduler"
        self.run.services.start(name, ["airflow", *AIRFLOW_PARTS[name]], self.run.env)


WORLDS: Final[Mapping[str, Callable[[Running], Folder]]] = {
    "folder": Folder,
    "bucket": Bucket,
    "cluster": SparkCluster,
    "airflow": Airflow,
}
