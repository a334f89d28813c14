"""A server that others can reach and that does not ask who they are.

Airflow, MLflow and Spark's master and worker are known; any other command may start.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["exposed", "is_loopback"]

_SPARK = ("org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker")
_YES = ("1", "t", "true", "y", "yes", "on")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on ``host``."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def exposed(environ: Mapping[str, str], command: Sequence[str]) -> str:
    """Why ``command`` must not start in ``environ``, with the remedy; empty when it may."""
    words = [Path(command[0]).name, *command[1:]] if command else []
    if words[:2] == ["airflow", "api-server"]:
        return _airflow(environ, words)
    if words[:2] == ["mlflow", "server"]:
        return _mlflow(environ, words)
    if len(words) > 1 and words[0] == "spark-class" and words[1] in _SPARK:
        return _spark(environ, words)
    return ""


def _airflow(environ: Mapping[str, str], words: Sequence[str]) -> str:
    host = _option(words, "--host", "-H") or environ.get("AIRFLOW__API__HOST") or "0.0.0.0"  # noqa: S104
    if is_loopback(host):
        return ""
    prefix = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER"
    if environ.get(f"{prefix}_ALL_ADMINS", "").lower() in _YES:
        return (
            f"Airflow would listen on {host} and let everybody in as its administrator: unset "
            f"{prefix}_ALL_ADMINS, or let it listen on 127.0.0.1."
        )
    if f"{prefix}_PASSWORDS_FILE" in environ or "AIRFLOW__CORE__AUTH_MANAGER" in environ:
        return ""
    return (
        f"Airflow would listen on {host} without passwords of yours: set {prefix}_PASSWORDS_FILE "
        "or AIRFLOW__CORE__AUTH_MANAGER, or let it listen on 127.0.0.1."
    )


def _mlflow(environ: Mapping[str, str], words: Sequence[str]) -> str:
    host = _option(words, "--host", "-h") or environ.get("MLFLOW_HOST") or "127.0.0.1"
    if is_loopback(host) or _option(words, "--app-name"):
        return ""
    return (
        f"MLflow would listen on {host} and let everybody move aliases: start it with --app-name "
        "basic-auth and a password, or let it listen on 127.0.0.1."
    )


def _spark(environ: Mapping[str, str], words: Sequence[str]) -> str:
    host = _option(words, "--host", "-h") or environ.get("SPARK_LOCAL_IP") or "every address"
    if is_loopback(host):
        return ""
    defaults = Path(environ.get("SPARK_CONF_DIR", "")) / "spark-defaults.conf"
    lines = defaults.read_text().splitlines() if defaults.is_file() else []
    said = dict(line.split(None, 1) for line in lines if len(line.split(None, 1)) == 2)
    if said.get("spark.authenticate", "").strip() == "true":
        return ""
    return (
        f"Spark would listen on {host} and run what anybody submits: set spark.authenticate true "
        f"and spark.authenticate.secret in {defaults}, or let it listen on 127.0.0.1."
    )


def _option(words: Sequence[str], *names: str) -> str:
    """The value of the last of the options ``names``; empty without one."""
    found = ""
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else "".join(words[number + 1 : number + 2])
    return found
