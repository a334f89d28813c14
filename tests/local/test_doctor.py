"""The doctor: each check passes and fails on given facts, and the command works anywhere."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.support.settings import SettingsError, load_settings
from local import doctor, installed, machine, ports, preflight, setup, variables
from local.machine import FAIL, GIB, OK, WARN, Found, Machine
from local.processes import MARK
from local.screen import Screen
from local.stack import LocalError, open_stack
from tests.local.test_setup import command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    """A machine that has what is needed, and a project that was not set up."""
    proc, cgroup, root = (tmp_path / name for name in ("proc", "cgroup", "project"))
    for folder in (proc / "self", cgroup, root / "local", root / "conf"):
        folder.mkdir(parents=True)
    for name in ("requirements.txt", "pyproject.toml", "local/setup.py"):
        shutil.copy(ROOT / name, root / name)
    meminfo(proc, available=8, swap=1)
    (proc / "self" / "cgroup").write_text("0::/jobs/one\n")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    return Machine(root, environ, None, proc, cgroup, disk(71), files(10**6))


def meminfo(proc: Path, *, available: int, swap: int = 0) -> None:
    facts = {"MemTotal": 16, "MemAvailable": available, "SwapTotal": swap}
    lines = (f"{name}: {value * 2**20} kB\n" for name, value in facts.items())
    (proc / "meminfo").write_text("".join(lines))


def disk(free: float) -> Any:
    return lambda _: SimpleNamespace(free=int(free * GIB))


def files(free: int, total: int = 10**7) -> Any:
    return lambda _: SimpleNamespace(f_favail=free, f_files=total)


def having(here: Machine, **environ: str) -> Machine:
    return replace(here, environ={**here.environ, **environ})


def environment(here: Machine, **versions: str) -> None:
    """A finished .venv with the pinned packages, or others of ``versions``."""
    site = here.venv / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    for name, version in {**installed.pins(here.root), **versions}.items():
        (site / f"{name.replace('-', '_')}-{version}.dist-info").mkdir()
    (here.venv / setup.STAMP).write_text(setup.fingerprint(here.root))


# Python, Java


def test_python_is_found_or_named(here: Machine, tmp_path: Path) -> None:
    assert doctor.python(replace(here, python=sys.executable)).level == OK
    found = doctor.python(replace(here, python=f"{tmp_path}/none"))
    assert found.level == FAIL
    assert f"{tmp_path}/none: not found" in found.seen
    assert "apt-get install python3.11" in found.remedy


def test_a_python_that_makes_no_environment_is_named(here: Machine, tmp_path: Path) -> None:
    bare = tmp_path / "python3.11"
    bare.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\necho 3.11\n')
    bare.chmod(0o755)
    lonely = replace(here, environ={"PATH": str(tmp_path)}, python=str(bare))
    found = doctor.python(lonely)
    assert (found.level, found.remedy) == (
        FAIL,
        "Debian and Ubuntu: apt-get install python3.11-venv.",
    )


def test_java_17_is_fine_and_21_a_warning(here: Machine, tmp_path: Path) -> None:
    java = command(tmp_path / "bin", "java", 'openjdk version "17.0.15" 2025-04-15')
    assert doctor.java(having(here, JAVA_HOME=str(tmp_path))) == Found(
        OK, f"17 at {java} (JAVA_HOME)"
    )
    command(tmp_path / "bin", "java", 'openjdk version "21.0.2"')
    assert doctor.java(having(here, JAVA_HOME=str(tmp_path))).level == WARN


def test_an_old_java_on_path_is_named(here: Machine, tmp_path: Path) -> None:
    command(tmp_path / "bin", "java", 'java version "1.8.0_392"')
    found = doctor.java(having(here, PATH=f"{tmp_path}/bin:{os.environ['PATH']}"))
    assert found.level == FAIL
    assert "1.8.0_392" in found.seen
    assert "openjdk-17" in found.remedy


def test_java_home_that_points_nowhere_is_named(here: Machine, tmp_path: Path) -> None:
    java = command(tmp_path / "bin", "java", 'openjdk version "17.0.15"')
    gone = f"{tmp_path}/gone"
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    found = doctor.java(having(here, JAVA_HOME=gone, PATH=path))
    assert (found.level, found.seen) == (
        FAIL,
        f"JAVA_HOME={gone} points nowhere: there is no bin/java in it",
    )
    assert found.remedy == f"Unset JAVA_HOME: {java} on PATH is Java 17."


# Memory, cores


@pytest.mark.parametrize(("available", "level"), [(8, OK), (4, WARN), (2, FAIL)])
def test_memory_that_is_available(here: Machine, available: int, level: str) -> None:
    meminfo(here.proc, available=available)
    found = machine.memory(here)
    assert found.level == level
    assert found.seen == f"{available}.0 GiB of 16.0 GiB available, no swap"


@pytest.mark.parametrize(
    ("line", "folder", "limit", "used"),
    [
        ("0::/jobs/one", "jobs", "memory.max", "memory.current"),
        ("0::/unseen/by/a/container", ".", "memory.max", "memory.current"),
        ("4:cpu,memory:/a", "memory/a", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ],
)
def test_a_containers_limit_counts(
    here: Machine, line: str, folder: str, limit: str, used: str
) -> None:
    (here.proc / "self" / "cgroup").write_text(f"{line}\n")
    group = here.cgroup / folder
    group.mkdir(parents=True, exist_ok=True)
    (group / limit).write_text(f"{4 * GIB}\n")
    (group / used).write_text(f"{3 * GIB}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {GIB}\n")
    found = machine.memory(here)
    assert (found.level, found.seen) == (
        FAIL,
        "2.0 GiB of the container's 4.0 GiB available, 1.0 GiB swap",
    )
    (group / limit).write_text("max\n" if limit == "memory.max" else f"{2**63 - 4096}\n")
    assert machine.memory(here).level == OK


def test_a_quota_of_cores_counts(here: Machine) -> None:
    (here.cgroup / "cpu.max").write_text("max 100000\n")
    whole = machine.cores(here).seen
    (here.cgroup / "cpu.max").write_text("50000 100000\n")
    assert machine.cores(here) == Found(
        WARN, "0.5 cores", "The times in README.md were measured on 2 cores."
    )
    assert whole != "0.5 cores"


# Disk


def test_disk_for_the_environment(here: Machine) -> None:
    assert doctor.environment_room(here).level == OK
    found = doctor.environment_room(replace(here, disk_usage=disk(2.5)))
    assert found.level == FAIL
    assert found.seen == (
        f"Only 2.5 GiB of disk are free at {here.venv}; the virtual environment needs 3.0 GiB"
    )


def test_a_finished_environment_needs_no_room(here: Machine) -> None:
    environment(here)
    assert doctor.environment_room(replace(here, disk_usage=disk(0.1))).level == OK
    (here.root / "requirements.txt").write_text("other==1\n")
    found = doctor.environment_room(replace(here, disk_usage=disk(0.1)))
    assert found.level == FAIL


def test_files_that_the_disk_has_left(here: Machine) -> None:
    found = doctor.environment_room(replace(here, statvfs=files(4000)))
    assert found.level == FAIL
    assert found.seen.startswith("Only 4,000 more files fit")
    without_limit = replace(here, statvfs=files(0, total=0))
    assert doctor.environment_room(without_limit).level == OK


def test_a_run_and_its_environment_share_a_disk(here: Machine) -> None:
    tight = replace(here, disk_usage=disk(5))
    assert doctor.environment_room(tight).level == OK
    found = doctor.state_room(tight)
    assert found.level == FAIL
    assert "a run with its virtual environment needs 6.0 GiB" in found.seen
    environment(here)
    assert doctor.state_room(tight).level == OK


def test_temporary_folder_and_cache(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(here, disk_usage=disk(0.2))
    assert machine.room_for_temporary(here).level == OK
    assert machine.room_for_temporary(small).level == FAIL
    assert machine.room_for_packages(small).level == OK, "links on one disk take nothing"
    monkeypatch.setattr(machine, "_same_disk", lambda *_: False)
    assert machine.room_for_packages(small).level == WARN
    assert machine.room_for_packages(small, finished=True).level == OK


def test_set_up_refuses_a_full_disk_with_the_same_sentence(
    here: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = replace(here, disk_usage=disk(1))
    monkeypatch.setattr(setup, "Machine", lambda **_: full)
    with pytest.raises(setup.SetupError) as caught:
        setup.prepare(here.root, sys.executable)
    assert str(caught.value) == doctor.environment_room(full).sentence
    assert not here.venv.exists()


def test_a_run_refuses_with_the_same_sentences(
    here: Machine,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stack = open_stack("simulator", None, root=project)
    monkeypatch.setattr(preflight, "find_java", lambda _: ("java", 17))
    for available, level in ((8, OK), (4, WARN), (2, FAIL)):
        meminfo(here.proc, available=available)
        given = replace(here, root=project, platform="linux")
        monkeypatch.setattr(preflight, "Machine", lambda given=given, **_: given)
        sentence = machine.memory(given).sentence
        if level == FAIL:
            with pytest.raises(LocalError, match=re.escape(sentence)):
                preflight.check_machine(stack, Screen())
            continue
        preflight.check_machine(stack, Screen())
        assert (sentence in capsys.readouterr().out) == (level == WARN)
    full = replace(here, root=project, platform="linux", disk_usage=disk(2))
    monkeypatch.setattr(preflight, "Machine", lambda **_: full)
    with pytest.raises(LocalError, match=r"Only 2\.0 GiB of disk are free"):
        preflight.check_machine(stack, Screen())


# Ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_taken_port_names_its_process(here: Machine, taken: int) -> None:
    usual = {"mlflow": taken, "airflow": 8080}
    found = ports.port(replace(here, proc=Path("/proc")), "mlflow", usual)
    assert found.level == WARN
    assert f"{taken} is taken by" in found.seen
    assert f"(pid {os.getpid()})" in found.seen
    assert re.search(r"MLFLOW_PORT=\d+", found.remedy)


def test_a_port_of_our_own_stack_is_fine(here: Machine, project: Path) -> None:
    stack = open_stack("simulator", None, root=project)
    code = (
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen();"
        "print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, MARK: stack.mark},
        cwd=stack.state,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        number = int(child.stdout.readline())
        usual = {"mlflow": 5000, "airflow": number}
        found = ports.port(replace(here, root=project, proc=Path("/proc")), "airflow", usual)
        elsewhere = ports.port(replace(here, proc=Path("/proc")), "airflow", usual)
        child.communicate("\n")
    assert found.level == OK
    assert f"(pid {child.pid}) of SOURCE=simulator" in found.seen
    assert elsewhere.level == WARN
    assert f"of the stack in {stack.state} (pid {child.pid})" in elsewhere.seen


def test_a_free_port(here: Machine, taken: int) -> None:
    free = next(n for n in range(taken + 1, 65_535) if ports.is_free(n))
    assert ports.port(here, "mlflow", {"mlflow": free, "airflow": 8080}).level == OK


def test_no_port_at_all_fails(here: Machine, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: dict[str, int]) -> None:
        raise LocalError(f"No free port for mlflow between {taken} and {taken + 99}.")

    monkeypatch.setattr(ports, "choose_ports", none_left)
    found = ports.port(here, "mlflow", {"mlflow": taken})
    assert found.level == FAIL
    assert "that the system does not show" in found.seen


# The system's other parts


def test_other_systems_and_libraries(here: Machine) -> None:
    assert doctor.system(replace(here, platform="linux")).level == OK
    assert doctor.system(replace(here, platform="darwin")).level == FAIL
    assert installed.native(here, "libc.so.6").level == OK
    assert installed.native(here, "libnone.so.9").level == FAIL


def test_localhost_must_be_the_loopback_address(here: Machine) -> None:
    assert doctor.loopback(here, lambda *_: [(0, 0, 0, "", ("127.0.0.1", 0))]).level == OK
    found = doctor.loopback(here, lambda *_: [(0, 0, 0, "", ("10.0.0.7", 0))])
    assert (found.level, found.seen) == (FAIL, "localhost resolves to 10.0.0.7")

    def unknown(*_: object) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    assert "Name or service not known" in doctor.loopback(here, unknown).seen


def test_folders_that_cannot_be_written(here: Machine) -> None:
    assert doctor.writable(here).level == OK
    found = doctor.writable(having(here, TMPDIR="/proc/self"))
    assert found.level == FAIL
    assert "/proc/self" in found.seen
    assert not here.state.exists()
    assert not here.venv.exists()


def test_the_databases_user_must_come_through(
    here: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "unprivileged", lambda: None)
    assert doctor.database_user(here).level == OK
    monkeypatch.setattr(doctor, "unprivileged", lambda: (54_321, 54_321))
    here.root.chmod(0o700)
    found = doctor.database_user(here)
    assert found.level == FAIL
    assert "chmod o+x" in found.remedy and str(here.root) in found.remedy


def test_open_files_and_clock(here: Machine) -> None:
    assert doctor.open_files(here, 1024).level == OK
    assert doctor.open_files(here, -1).level == OK
    assert doctor.open_files(here, 256).level == WARN
    made = (here.root / "requirements.txt").stat().st_mtime
    assert doctor.clock(here, made + 1).level == OK
    assert doctor.clock(here, made - 2 * doctor.DAY).level == WARN


# Packages


def test_packages_as_pinned(here: Machine) -> None:
    assert installed.packages(here).seen == "there is no .venv yet: make setup builds it"
    environment(here, torch="2.13.0+cpu")
    assert installed.packages(here).level == OK
    assert installed.spark_twins(here).level == OK


def test_a_package_of_another_version_or_none_is_named(here: Machine) -> None:
    environment(here, numpy="1.26.4")
    gone = here.venv / "lib" / "python3.11" / "site-packages"
    next(gone.glob("pytest_timeout-*")).rmdir()
    found = installed.packages(here)
    assert found.level == FAIL
    assert "numpy 1.26.4 (wanted: 2.4.6)" in found.seen
    assert "pytest-timeout missing (wanted: 2.4.0)" in found.seen


def test_an_environment_of_other_requirements(here: Machine) -> None:
    environment(here)
    (here.root / "pyproject.toml").write_text("# changed\n")
    assert installed.packages(here).level == WARN
    (here.venv / setup.MARKER).touch()
    assert installed.packages(here).seen == "the last install was cut short"


def test_two_versions_of_spark_are_named(here: Machine) -> None:
    environment(here, **{"pyspark-client": "4.1.0"})
    found = installed.spark_twins(here)
    assert (found.level, found.seen) == (FAIL, ".venv has pyspark 4.2.0 and pyspark-client 4.1.0")


# Variables and settings


def test_a_typo_names_the_nearest_variable(here: Machine) -> None:
    assert variables.unknown_variables(having(here, RANKMILL_CONFIG="x")).level == OK
    found = variables.unknown_variables(having(here, RANKMILL_WAREHUOSE="x"))
    assert (found.level, found.seen) == (FAIL, "nobody reads RANKMILL_WAREHUOSE")
    assert "RANKMILL_WAREHUOSE: did you mean RANKMILL_WAREHOUSE?" in found.remedy
    for name in ("RANKMIL_CONFIG", "rankmill_config"):
        assert "RANKMILL_CONFIG?" in variables.unknown_variables(having(here, **{name: "x"})).remedy
    assert variables.unknown_variables(having(here, RANKMILL_QQ="x")).level == WARN


def read_in(text: str) -> set[str]:
    """Whole names of variables; a prefix that is completed elsewhere ends in an underscore."""
    return {name for name in re.findall(r"\bRANKMILL_\w*[A-Z]\b", text) if name.isupper()}


def test_the_list_of_variables_is_what_the_code_reads() -> None:
    folders = ("local", "jobs", "dags", "feature_store", "models", "benchmarks", "examples")
    places = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    places += [
        *(ROOT / "tests" / "faults").glob("*.py"),
        *(p for p in (ROOT / "docker").rglob("*") if p.is_file()),
    ]
    places += [ROOT / "Makefile"]
    home = ROOT / "local" / "variables.py"
    read = {name for path in places if path != home for name in read_in(path.read_text())}
    assert read == variables.VARIABLES


def test_readme_lists_every_variable() -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line[:3] == "| `"]
    listed = {name for row in rows for name in read_in(row.split("|")[1])}
    assert listed == variables.VARIABLES


@pytest.mark.parametrize(
    ("environ", "level", "seen"),
    [
        ({"RANKMILL_DATA": "/no/such"}, FAIL, "RANKMILL_DATA=/no/such does not exist"),
        ({"RANKMILL_JOBS_DIR": "/no"}, FAIL, "RANKMILL_JOBS_DIR=/no does not exist"),
        ({"MLFLOW_TRACKING_URI": "file:///runs"}, FAIL, "scheme file, which the registry"),
        ({"MLFLOW_TRACKING_URI": "mlflow:5000"}, FAIL, "no scheme"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///a.db"}, WARN, "a database of scheme sqlite"),
        ({"RANKMILL_WAREHOUSE": "/tables"}, WARN, "RANKMILL_CATALOG_URI is not"),
        ({"RANKMILL_CATALOG_URI": "sqlite://"}, WARN, "RANKMILL_WAREHOUSE is not"),
        (
            {"RANKMILL_WAREHOUSE": "s3://b/t", "RANKMILL_CATALOG_URI": "sqlite://"},
            FAIL,
            "RANKMILL_WAREHOUSE=s3://b/t is an address",
        ),
        (
            {"RANKMILL_WAREHOUSE": "here", "RANKMILL_CATALOG_URI": "postgresql://h/catalog"},
            WARN,
            "another folder wherever",
        ),
        (
            {"RANKMILL_WAREHOUSE": "/t", "RANKMILL_CATALOG_URI": "postgres://u:secret@h/c"},
            FAIL,
            "has the scheme 'postgres'",
        ),
        (
            {"RANKMILL_START_HOUR": "2026-11-12T00", "RANKMILL_END_HOUR": "2026-11-11T00"},
            FAIL,
            "RANKMILL_START_HOUR comes after",
        ),
        ({"RANKMILL_SPARK_MASTER": "local[two]"}, FAIL, "'local[two]' is no Spark master"),
        ({"SPARK_HOME": "/opt/spark"}, WARN, "SPARK_HOME is set"),
    ],
)
def test_settings_that_cannot_work(
    here: Machine, environ: dict[str, str], level: str, seen: str
) -> None:
    found = variables.settings(having(here, **environ))
    assert found.level == level
    assert seen in found.seen
    assert "secret" not in found.sentence


def test_settings_that_work(here: Machine) -> None:
    found = having(
        here,
        RANKMILL_CONFIG=str(here.root / "requirements.txt"),
        RANKMILL_DATA=str(here.root),
        RANKMILL_WAREHOUSE="/tables",
        RANKMILL_CATALOG_URI="postgresql+psycopg2://u@h/catalog",
        MLFLOW_TRACKING_URI="http://127.0.0.1:5000",
        RANKMILL_START_HOUR="2026-11-11T00",
        RANKMILL_END_HOUR="2026-11-11T05",
        RANKMILL_SPARK_MASTER="local[2]",
    )
    assert variables.settings(found) == Found(OK, "nothing contradicts")
    for master in ("local", "local[*]", "local[4,3]", "spark://h:7077", "yarn", "k8s://h:443"):
        assert variables.settings(having(here, RANKMILL_SPARK_MASTER=master)).level == OK, master


def test_refusals_have_the_words_of_who_refuses(
    here: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKMILL_CONFIG", "/no/such.yaml")
    with pytest.raises(SettingsError) as config:
        load_settings(argparse.Namespace(config=None))
    assert variables.settings(having(here, RANKMILL_CONFIG="/no/such.yaml")).seen == str(
        config.value
    )
    # Airflow must not be imported without a home of its own, so the DAGs' words are read.
    hour = variables.settings(having(here, RANKMILL_END_HOUR="2026-11-11")).seen
    assert hour.startswith("RANKMILL_END_HOUR='2026-11-11' is not an hour")
    assert hour.partition("'2026-11-11'")[2] in (ROOT / "dags" / "tasks.py").read_text()
    zone = variables.zones(having(here, RANKMILL_TIME_ZONE="Mars/Olympus"))
    words = f"{zone.seen}; {zone.remedy}".partition("'Mars/Olympus'")[2]
    assert words == " is no time zone; write it as Asia/Shanghai"
    assert words in (ROOT / "dags" / "business_day.py").read_text()


def test_the_zones_of_sources_load(here: Machine) -> None:
    found = variables.zones(replace(here, root=ROOT))
    assert (found.level, found.seen) == (OK, "Asia/Shanghai, Asia/Tokyo, UTC load")


def test_a_machine_without_zones(here: Machine) -> None:
    (here.root / "conf" / "mine.yaml").write_text("source:\n  options:\n    time_zone: No/Where\n")
    assert variables.zones(here).level == WARN
    (here.venv / "bin").mkdir(parents=True)
    (here.venv / "bin" / "python").symlink_to(sys.executable)
    found = variables.zones(here)
    assert found.level == FAIL
    assert "knows no time zone No/Where" in found.seen


# The command


def test_what_cannot_be_looked_at_is_a_warning(here: Machine) -> None:
    def closed(_: Machine) -> Found:
        raise PermissionError(13, "Permission denied", "/closed")

    [(_, found)] = doctor.examine(here, [doctor.Check("closed", "a closed place", closed)])
    assert found.level == WARN
    assert "Permission denied: '/closed'" in found.seen


def test_the_table_is_readable_without_colour() -> None:
    long = "apt-get install " + "openjdk-17-jre-headless " * 4
    results = [
        (doctor.CHECKS[0], Found(OK, "linux")),
        (doctor.CHECKS[1], Found(FAIL, "no Python", long)),
    ]
    lines = doctor.table(results, 90).splitlines()
    assert lines[0].split() == ["check", "level", "what", "was", "seen", "what", "to", "do"]
    assert max(len(line) for line in lines) <= 90
    assert lines[3].startswith("python  FAIL   no Python")
    assert "\x1b" not in "".join(lines)
    assert doctor.verdict(results) == "1 failed: python."


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The parts of a project that the doctor reads, without an environment."""
    root = tmp_path / "copy"
    shutil.copytree(ROOT / "local", root / "local", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "conf", root / "conf")
    for name in ("requirements.txt", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, root / name)
    return root


def run(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command on a Python that has no package at all."""
    command = [sys.executable, "-S", "-m", "local.doctor", *arguments]
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("RANKMILL_", "MLFLOW_"))}
    wide = {"COLUMNS": "400"}  # however long the temporary folder's path is, no cell is folded
    return subprocess.run(
        command, cwd=root, env={**kept, **wide, **environ}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def levels(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(row) == {"check", "looks_at", "level", "seen", "remedy"} for row in found)
    return {row["check"]: row["level"] for row in found}


def test_the_command_works_before_set_up(copy: Path) -> None:
    done = run(copy, "--json")
    assert done.stderr == ""
    found = levels(done)
    assert list(found) == [check.name for check in doctor.CHECKS]
    assert found["packages"] == OK
    assert done.returncode == (FAIL in found.values())
    assert not (copy / ".rankmill").exists()
    assert not (copy / ".venv").exists()


def test_the_command_sees_an_environment(copy: Path) -> None:
    environment(Machine(root=copy), numpy="1.26.4")
    shown = run(copy, "--only", "packages", "--only", "spark packages")
    assert shown.returncode == 1
    assert "numpy 1.26.4 (wanted: 2.4.6)" in " ".join(shown.stdout.split())
    assert "1 failed: packages." in shown.stdout
    assert run(copy, "--only", "spark packages").returncode == 0


def test_warnings_do_not_fail(copy: Path) -> None:
    done = run(copy, "--only", "settings", SPARK_HOME="/opt/spark")
    assert done.returncode == 0
    assert "WARN" in done.stdout
    done = run(copy, "--only", "variables", RANKMILL_WAREHUOSE="/x")
    assert done.returncode == 1
    assert "RANKMILL_WAREHOUSE?" in done.stdout


def test_help_has_examples_and_make_runs_it(copy: Path) -> None:
    assert "make doctor ARGS=--json" in run(copy, "--help").stdout
    done = subprocess.run(
        ["/usr/bin/env", "make", "-s", "doctor", "ARGS=--only cores", f"PYTHON={sys.executable}"],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"^cores +(ok|WARN)", done.stdout, re.MULTILINE)


def test_the_doctor_needs_nothing_installed() -> None:
    """What it imports, however far, is the standard library and local's own files."""
    todo, seen = ["doctor"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in ast.walk(ast.parse((ROOT / "local" / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for module in names:
                package, _, part = module.partition(".")
                assert package == "local" or package in sys.stdlib_module_names, (name, module)
                todo += [part] if package == "local" else []
    assert {"setup", "machine", "ports", "variables", "installed"} <= seen
