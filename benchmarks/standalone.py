"""A Spark standalone cluster as processes on the loopback address."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pyspark

HOST = "127.0.0.1"
PATIENCE_S = 120


class Cluster:
    """A master and workers from the pip package, on free ports, for as long as the block lasts.

    Attributes:
        url: the master's address.
        workers: the process ids of the workers, below which executors run.
    """

    def __init__(
        self, folder: Path, env: Mapping[str, str], workers: int, cores: int, memory: str
    ) -> None:
        self.folder = folder
        home = Path(pyspark.__path__[0])
        self._class = str(home / "bin" / "spark-class")
        # The jobs' own settings keep a log to warnings; where the master listens is none.
        other = {key: value for key, value in env.items() if key != "SPARK_CONF_DIR"}
        self._env = {
            **other, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": HOST,
            "PYSPARK_PYTHON": sys.executable, "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        }  # fmt: skip
        self._count, self._cores, self._memory = workers, cores, memory
        self._processes: list[subprocess.Popen[bytes]] = []
        self.url = ""

    @property
    def workers(self) -> list[int]:
        return [process.pid for process in self._processes[1:]]

    def __enter__(self) -> Cluster:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            log = self._start("Master")
            self.url = self._wait_for(log, r"Starting Spark master at (spark://\S+)")
            for number in range(self._count):
                work = str(self.folder / f"work{number}")
                size = ("--cores", str(self._cores), "--memory", self._memory)
                self._start("Worker", *size, "--work-dir", work, self.url)
            self._wait_for(log, r"(Registering worker)", self._count)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(30)

    def _start(self, kind: str, *arguments: str) -> Path:
        log = self.folder / f"{kind.lower()}-{len(self._processes)}.log"
        command = [self._class, f"org.apache.spark.deploy.{kind.lower()}.{kind}",
                   "--host", HOST, "--port", "0", "--webui-port", "0", *arguments]  # fmt: skip
        with log.open("wb") as output:
            self._processes.append(subprocess.Popen(
                command, env=self._env, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT
            ))  # fmt: skip
        return log

    def _wait_for(self, log: Path, pattern: str, count: int = 1) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = re.findall(pattern, log.read_text())
            if len(found) >= count:
                return str(found[0])
            if any(process.poll() is not None for process in self._processes):
                break
            time.sleep(0.2)
        raise SystemExit(f"{log.name} does not say {pattern!r}:\n{log.read_text()[-3000:]}")
