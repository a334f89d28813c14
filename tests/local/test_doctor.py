"""The doctor on the machine: each check passes and fails on given facts."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local import doctor, installed, machine, ports, preflight, setup
from local.machine import FAIL, GIB, OK, WARN, Found, Machine
from local.processes import MARK
from local.screen import Screen
from local.stack import LocalError, open_stack
from tests.local.machines import disk, environment, files, having, meminfo
from tests.local.test_setup import command

ROOT = Path(__file__).resolve().parents[2]


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
    assert machine.total_memory(here) == 4 * GIB
    (group / limit).write_text("max\n" if limit == "memory.max" else f"{2**63 - 4096}\n")
    assert machine.memory(here).level == OK
    assert machine.total_memory(here) == 16 * GIB


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
