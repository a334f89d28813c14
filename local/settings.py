"""Every setting of the processes: their environment, Spark's defaults, secrets."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from local.machine import total_memory
from local.stack import HOST, LONGEST_SOCKET_FOLDER, Ports, Stack

__all__ = ["database_uri", "driver_memory", "environment", "write_spark_settings"]


def secret(stack: Stack, name: str) -> str:
    """A random text of this state folder, made once, readable by its owner only."""
    path = stack.state / "secrets.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    if name not in known:
        known[name] = secrets.token_urlsafe(64)
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(known, handle)
        draft.replace(path)
    return known[name]


def database_uri(stack: Stack, database: str, driver: str = "psycopg2") -> str:
    """SQLAlchemy's address of one of the embedded server's databases."""
    return f"postgresql+{driver}://postgres@/{database}?host={stack.short_folder}"


def driver_memory() -> str:
    """A quarter of the memory there is for Spark's driver, from 1 to 4 GiB."""
    return f"{min(4096, max(1024, total_memory() // 4 // 2**20))}m"


def write_spark_settings(stack: Stack) -> Path:
    """Write SPARK_CONF_DIR: what every spark-submit on this machine takes as its defaults."""
    folder = stack.state / "spark"
    folder.mkdir(exist_ok=True)
    jvm = f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.io.tmpdir={temporary(stack)}"
    lines = {
        "spark.driver.memory": driver_memory(),
        "spark.driver.defaultJavaOptions": f"{jvm} -XX:-UsePerfData",
        "spark.driver.host": HOST,
        "spark.driver.bindAddress": HOST,
        "spark.local.dir": temporary(stack),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.warehouse.dir": stack.state / "tmp" / "spark-warehouse",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    text = "".join(f"{key} {value}\n" for key, value in lines.items())
    (folder / "spark-defaults.conf").write_text(text)
    log4j = (stack.root / "conf" / "log4j2.properties").read_text()
    (folder / "log4j2.properties").write_text(log4j)
    return folder


def temporary(stack: Stack) -> Path:
    """Temporary files stay in the state folder, unless its path is too long for sockets there."""
    folder = stack.state / "tmp"
    return folder if len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER else stack.short_folder


def environment(
    stack: Stack, ports: Ports, hours: tuple[str, str] | None = None, time_zone: str | None = None
) -> dict[str, str]:
    """The environment of every service and job of ``stack``.

    Args:
        hours: the first and the last hour that Airflow schedules; None before they are known.
        time_zone: of the source's business days; None before it is known.
    """
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("AIRFLOW", "MLFLOW_", "RANKMILL_", "SPARK_", "PYSPARK_"))
    }
    result = {**inherited, **job_settings(stack, ports), **airflow_settings(stack, ports)}
    result["PATH"] = f"{stack.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if java := os.environ.get("JAVA_HOME"):
        result["PATH"] = f"{java}/bin{os.pathsep}{result['PATH']}"
    if hours:
        result["RANKMILL_START_HOUR"], result["RANKMILL_END_HOUR"] = hours
    if time_zone:
        result["RANKMILL_TIME_ZONE"] = time_zone
    return result


def spark_master() -> str:
    """Where Spark jobs run: this machine's cores, unless RANKMILL_SPARK_MASTER says otherwise."""
    return os.environ.get("RANKMILL_SPARK_MASTER") or "local[*]"


def without_proxy() -> dict[str, str]:
    """A proxy for the world has no part in calls on this machine."""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    value = ",".join(filter(None, [known, HOST, "localhost"]))
    return {"NO_PROXY": value, "no_proxy": value}


def job_settings(stack: Stack, ports: Ports) -> dict[str, str]:
    """What the jobs read: their own settings, MLflow's, Spark's, and the threads' manners."""
    python = str(stack.bin / "python")
    result = {
        "RANKMILL_CONFIG": str(stack.config),
        "RANKMILL_WAREHOUSE": str(stack.warehouse),
        "RANKMILL_CATALOG_URI": database_uri(stack, "catalog"),
        "RANKMILL_SPARK_MASTER": spark_master(),
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{ports.mlflow}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "SPARK_LOCAL_IP": HOST,
        "SPARK_CONF_DIR": str(stack.state / "spark"),
        "PYSPARK_PYTHON": python,
        "PYSPARK_DRIVER_PYTHON": python,
        "OMP_WAIT_POLICY": "PASSIVE",
        "TMPDIR": str(temporary(stack)),
        "MPLCONFIGDIR": str(stack.state / "tmp" / "matplotlib"),
        "TZ": "UTC",
    }
    result.update(without_proxy())
    if stack.data_folder:
        result["RANKMILL_DATA"] = str(stack.data_folder)
    if metrics := os.environ.get("RANKMILL_METRICS"):  # services run in another folder
        result["RANKMILL_METRICS"] = str(Path(metrics).expanduser().resolve())
    return result


def airflow_settings(stack: Stack, ports: Ports) -> dict[str, str]:
    """Airflow 3 on the loopback address: everybody on this machine is its administrator."""
    home = stack.state / "airflow"
    base = f"http://{HOST}:{ports.airflow}"
    spark = {
        "conn_type": "spark",
        "host": spark_master(),
        "extra": {"spark-binary": "spark-submit", "deploy-mode": "client"},
    }
    options = {
        "CORE__DAGS_FOLDER": stack.root / "dags",
        "CORE__PLUGINS_FOLDER": stack.root / "dags" / "plugins",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 2,
        "CORE__LOAD_EXAMPLES": False,
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": True,
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
        "CORE__EXECUTION_API_SERVER_URL": f"{base}/execution/",
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "CORE__FERNET_KEY": "",
        "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": 5,
        "DATABASE__SQL_ALCHEMY_CONN": database_uri(stack, "airflow"),
        "DATABASE__SQL_ALCHEMY_CONN_ASYNC": database_uri(stack, "airflow", "psycopg"),
        "API__HOST": HOST,
        "API__PORT": ports.airflow,
        "API__BASE_URL": base,
        "API__WORKERS": 1,
        "API__SECRET_KEY": secret(stack, "api"),
        "API_AUTH__JWT_SECRET": secret(stack, "jwt"),
        "LOGGING__BASE_LOG_FOLDER": stack.logs / "tasks",
        "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": stack.logs / "dag-processor-files",
        "LOGGING__COLORED_CONSOLE_LOG": False,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 10,
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": home / "bundles",
        # After an unclean end the next scheduler must soon take over what the last one was running.
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": 15,
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 20,
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 60,
    }
    result = {f"AIRFLOW__{key}": str(value) for key, value in options.items()}
    result["AIRFLOW_HOME"] = str(home)
    result["AIRFLOW_CONN_SPARK_DEFAULT"] = json.dumps(spark)
    return result
