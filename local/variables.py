"""The project's environment variables: which there are, and settings that cannot work.

Every RANKMILL_ variable that any part of the project reads or sets is named here and in README's
table of settings. The sentences about bad values are those of the code that would refuse them.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from local.exposure import exposed
from local.machine import FAIL, OK, WARN, Found, Machine
from local.setup import answer

__all__ = ["VARIABLES", "settings", "unknown_variables", "zones"]

VARIABLES = frozenset(
    {
        "RANKMILL_CATALOG_URI",
        "RANKMILL_CONFIG",
        "RANKMILL_DATA",
        "RANKMILL_END_HOUR",
        "RANKMILL_FAULTS",
        "RANKMILL_FAULT_SEED",
        "RANKMILL_FAULT_TRIES",
        "RANKMILL_JOBS_DIR",
        "RANKMILL_METRICS",
        "RANKMILL_RUN_ID",
        "RANKMILL_SCRATCH",
        "RANKMILL_SECRETS_DIR",
        "RANKMILL_SPARK_MASTER",
        "RANKMILL_STACK",
        "RANKMILL_START_HOUR",
        "RANKMILL_TIME_ZONE",
        "RANKMILL_WAREHOUSE",
    }
)
HOUR_FORMAT = "%Y-%m-%dT%H"
_MASTER = re.compile(r"local(\[(\*|\d+)(,\s*\d+)?\])?|(spark|k8s)://.+|yarn")
_ZONE = re.compile(r"""(?i:time_zone)["':=\s]{1,5}([A-Z][A-Za-z]+/[A-Z][A-Za-z_/-]+)""")
Problem = tuple[str, str, str]  # level, what is wrong, what to do; as in Found


def unknown_variables(machine: Machine) -> Found:
    """Variables with the project's prefix, or one that looks like it, that nobody reads."""
    ours = [name for name in machine.environ if re.match(r"RANK_?MIL+_?", name, re.IGNORECASE)]
    unknown = sorted(set(ours) - VARIABLES)
    if not unknown:
        return Found(OK, f"{len(ours)} set, all known" if ours else "none is set")
    near = {n: difflib.get_close_matches(n.upper(), sorted(VARIABLES), 1, 0.8) for n in unknown}
    typos = [f"{name}: did you mean {found[0]}?" for name, found in near.items() if found]
    advice = [*typos, "The names are in README.md under Settings."]
    seen = f"nobody reads {', '.join(unknown)}"
    return Found(FAIL if typos else WARN, seen, " ".join(advice))


def settings(machine: Machine, *, published: bool = False) -> Found:
    """Values that jobs or DAGs would refuse, and settings that contradict each other.

    Args:
        published: whether servers may listen on other addresses than 127.0.0.1.
    """
    rules = _RULES if published else (*_RULES, _addresses)
    problems = [found for rule in rules for found in rule(machine)]
    if not problems:
        return Found(OK, "nothing contradicts")
    level = FAIL if any(found[0] == FAIL for found in problems) else WARN
    seen = "; ".join(found[1] for found in problems)
    return Found(level, seen, " ".join(found[2] for found in problems))


def _paths(machine: Machine) -> list[Problem]:
    """Files and folders that are not there."""
    found: list[Problem] = []
    config = machine.environ.get("RANKMILL_CONFIG")
    if config and not (machine.root / config).is_file():
        refused = f"no configuration at {config}; pass --config or set RANKMILL_CONFIG"
        found.append((FAIL, refused, "The configurations are in conf/."))
    for name, what in (("RANKMILL_DATA", "the source's files"), ("RANKMILL_JOBS_DIR", "the jobs")):
        value = machine.environ.get(name)
        if value and "://" not in value and not (machine.root / value).exists():
            remedy = f"Set {name} to where {what} are, or unset it."
            found.append((FAIL, f"{name}={value} does not exist", remedy))
    return found


def _tracking(machine: Machine) -> list[Problem]:
    """MLflow's address."""
    name, remedy = "MLFLOW_TRACKING_URI", "Write it as http://127.0.0.1:5000."
    value = machine.environ.get(name, "")
    scheme = urlsplit(value).scheme.partition("+")[0]
    if not value or scheme in ("http", "https"):
        return []
    if scheme in ("sqlite", "postgresql", "mysql", "mssql"):
        return [(WARN, f"{name} is a database of scheme {scheme}, not a server", remedy)]
    shown = f"scheme {scheme}" if "://" in value else "no scheme"
    return [(FAIL, f"{name} has {shown}, which the registry does not support", remedy)]


def _store(machine: Machine) -> list[Problem]:
    """The tables' folder and their catalog, which jobs need both."""
    found: list[Problem] = []
    folder = machine.environ.get("RANKMILL_WAREHOUSE", "")
    catalog = machine.environ.get("RANKMILL_CATALOG_URI", "")
    if bool(folder) != bool(catalog):
        options = ("RANKMILL_WAREHOUSE", "RANKMILL_CATALOG_URI")
        there, absent = options if folder else options[::-1]
        found.append((WARN, f"{there} is set and {absent} is not", "A job by hand needs both."))
    if "://" in folder and not folder.startswith(("s3://", "file://")):
        wrong = f"RANKMILL_WAREHOUSE: tables cannot lie in {folder}"
        found.append((FAIL, wrong, "name a folder, or a bucket as s3://bucket/folder"))
    elif folder and "://" not in folder and not Path(folder).is_absolute():
        wrong = f"RANKMILL_WAREHOUSE={folder} means another folder wherever a job is started"
        found.append((WARN, wrong, "Write the whole path."))
    scheme = catalog.partition(":")[0]
    if catalog and scheme.partition("+")[0] not in ("postgresql", "sqlite"):
        wrong = f"RANKMILL_CATALOG_URI has the scheme {scheme!r}"
        found.append((FAIL, wrong, "Write it as postgresql+psycopg2://user@host:5432/catalog."))
    return found


def _bucket(machine: Machine) -> list[Problem]:
    """How a warehouse in a bucket is reached: by AWS's own variables."""
    found: list[Problem] = []
    if not machine.environ.get("RANKMILL_WAREHOUSE", "").startswith("s3://"):
        return found
    endpoint = machine.environ.get("AWS_ENDPOINT_URL", "")
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        wrong = f"AWS_ENDPOINT_URL={endpoint} is no address"
        found.append((FAIL, wrong, "Write it as http://127.0.0.1:9000; none is Amazon's own."))
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    there = [name for name in keys if machine.environ.get(name)]
    if len(there) == 1:
        absent = next(name for name in keys if name not in there)
        found.append((FAIL, f"{there[0]} is set and {absent} is not", "Set both, or neither."))
    if not machine.environ.get("RANKMILL_SCRATCH"):
        wrong = "checkpoints lie among the temporary files"
        found.append((WARN, wrong, "Set RANKMILL_SCRATCH to a folder that outlives a job."))
    return found


def _hours(machine: Machine) -> list[Problem]:
    """The span that Airflow schedules."""
    found: list[Problem] = []
    read: dict[str, dt.datetime] = {}
    for name in ("RANKMILL_START_HOUR", "RANKMILL_END_HOUR"):
        text = machine.environ.get(name)
        if text:
            try:
                read[name] = dt.datetime.strptime(text, HOUR_FORMAT).replace(tzinfo=dt.timezone.utc)  # noqa: UP017
            except ValueError:
                wrong = f"{name}={text!r} is not an hour; write it as 2026-11-11T05"
                found.append((FAIL, wrong, ""))
    if len(read) == 2 and read["RANKMILL_START_HOUR"] > read["RANKMILL_END_HOUR"]:
        wrong = "RANKMILL_START_HOUR comes after RANKMILL_END_HOUR"
        found.append((FAIL, wrong, "No hour would be scheduled: exchange them, or unset the end."))
    return found


def _master(machine: Machine) -> list[Problem]:
    """Where Spark runs; the one variable that ``make run`` takes over."""
    value = machine.environ.get("RANKMILL_SPARK_MASTER")
    if not value or _MASTER.fullmatch(value):
        return []
    remedy = "Write it as local[*] or spark://host:7077."
    return [(FAIL, f"RANKMILL_SPARK_MASTER={value!r} is no Spark master", remedy)]


def _addresses(machine: Machine) -> list[Problem]:
    """What would publish a page to others; ``make run`` binds 127.0.0.1, whatever is set."""
    servers = {"AIRFLOW__API__HOST": ["airflow", "api-server"], "MLFLOW_HOST": ["mlflow", "server"]}
    remedy = "`make run` listens on 127.0.0.1 alone: unset {}; docker/ publishes behind passwords."
    return [
        (FAIL, f"{name}: {reason}", remedy.format(name))
        for name, command in servers.items()
        if machine.environ.get(name)
        for reason in [exposed(machine.environ, command)]
        if reason
    ]


def _others(machine: Machine) -> list[Problem]:
    """Variables of others that put another Spark or other packages before the installed ones."""
    found: list[Problem] = []
    for name in ("SPARK_HOME", "PYTHONHOME", "PYTHONPATH"):
        if machine.environ.get(name):
            wrong = f"{name} is set and comes before what .venv holds"
            found.append((WARN, wrong, f"Unset {name} when a job finds other packages."))
    return found


_RULES: tuple[Callable[[Machine], list[Problem]], ...] = (
    _paths, _tracking, _store, _bucket, _hours, _master, _others,
)  # fmt: skip


def _wanted_zones(machine: Machine) -> list[str]:
    """The zones that configurations and sources name, and the one that is set."""
    files = [
        *sorted((machine.root / "conf").glob("*.yaml")),
        *sorted((machine.root / "feature_store" / "sources").rglob("*.py")),
    ]
    named = {zone for file in files for zone in _ZONE.findall(file.read_text())}
    return sorted({"UTC", *named})


def zones(machine: Machine) -> Found:
    """Whether the time zone database knows the sources' zones and the one that is set.

    Jobs read the package ``tzdata`` of ``.venv`` where the system has no database: once there is a
    ``.venv``, it is asked.
    """
    chosen = machine.environ.get("RANKMILL_TIME_ZONE")
    wanted = _wanted_zones(machine)
    inside = machine.venv / "bin" / "python"
    python = str(inside) if inside.exists() else sys.executable
    absent = _absent(python, [*wanted, *([chosen] if chosen else [])])
    missing = [zone for zone in wanted if zone in absent]
    if missing and inside.exists():
        remedy = "Install the database: apt-get install tzdata."
        return Found(FAIL, f"{python} knows no time zone {', '.join(missing)}", remedy)
    if missing:
        remedy = "Set-up installs a package of them: make setup."
        return Found(WARN, f"this Python knows no time zone {', '.join(missing)}", remedy)
    if chosen in absent:
        wrong = f"RANKMILL_TIME_ZONE={chosen!r} is no time zone"
        return Found(FAIL, wrong, "write it as Asia/Shanghai")
    return Found(OK, f"{', '.join(wanted)} load")


_PROBE = """
import sys, zoneinfo
for name in sys.argv[1:]:
    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        print(name)
"""


def _absent(python: str, names: list[str]) -> set[str]:
    """Those of ``names`` that ``python`` cannot load; all when it does not run."""
    printed = answer([python, "-c", _PROBE, *names])
    return set(names) if printed is None else set(printed.splitlines())
