"""Set-up: what is missing is named, and a cut-off install is not trusted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from local import setup

ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, name: str, says: str, status: int = 0) -> Path:
    """An executable in ``folder`` that prints ``says`` on standard error, as java does."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat >&2 <<'TEXT'\n{says}\nTEXT\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_java_that_is_absent_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(setup.SetupError, match=r"no java on PATH(.|\n)*JAVA_HOME=/path/to/jdk-17"):
        setup.find_java({"PATH": str(tmp_path)})


@pytest.mark.parametrize(
    ("says", "shown"),
    [('java version "1.8.0_392"', r"1\.8\.0_392"), ('openjdk version "11.0.2" 2019', r"11\.0\.2")],
)
def test_java_of_another_version_is_named(tmp_path: Path, says: str, shown: str) -> None:
    command(tmp_path / "bin", "java", says)
    with pytest.raises(setup.SetupError, match=f"Java 17 is needed(.|\n)*{shown}"):
        setup.find_java({"JAVA_HOME": str(tmp_path)})


def test_java_home_that_does_not_work_is_named(tmp_path: Path) -> None:
    with pytest.raises(setup.SetupError, match=f"JAVA_HOME={tmp_path}.*does not run"):
        setup.find_java({"JAVA_HOME": str(tmp_path), "PATH": "/usr/bin"})


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    java = command(tmp_path / "home" / "bin", "java", 'openjdk version "17.0.15" 2025-04-15')
    command(tmp_path / "path", "java", 'openjdk version "11.0.2"')
    found = setup.find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "path")})
    assert found == (str(java), 17)


def test_python_of_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "python3"
    path.write_text("#!/bin/sh\necho 3.9\n")
    path.chmod(0o755)
    with pytest.raises(setup.SetupError, match=r"python3\.11: not found; python3: 3\.9"):
        setup.find_python(None, path=str(tmp_path))


def test_the_named_python_is_taken_or_refused(tmp_path: Path) -> None:
    assert setup.find_python(sys.executable) == sys.executable
    with pytest.raises(setup.SetupError, match=f"{tmp_path}/none: not found"):
        setup.find_python(f"{tmp_path}/none")


def test_pip_settings_reach_uv_under_its_names() -> None:
    config = "global.extra-index-url='https://a/ https://b/'\n:env:.find-links='/one /two'\n"
    found = setup.index_settings({"PIP_INDEX_URL": "https://c/"}, config)
    assert found == {
        "UV_FIND_LINKS": "/one,/two",
        "UV_DEFAULT_INDEX": "https://c/",
        "UV_INDEX": "https://a/ https://b/",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    assert setup.index_settings({"UV_FIND_LINKS": "/mine"}, ":env:.find-links='/one'") == {}


def test_fingerprint_follows_the_requirements(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    for name in ("requirements.txt", "pyproject.toml", "local/setup.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    before = setup.fingerprint(tmp_path)
    assert setup.fingerprint(tmp_path) == before
    with (tmp_path / "requirements.txt").open("a") as handle:
        handle.write("one-more==1.0\n")
    assert setup.fingerprint(tmp_path) != before


def test_a_cut_off_install_is_built_anew_and_a_whole_one_kept(tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    quick = tmp_path / "python-without-pip"  # pip's own install would take most of the time
    quick.write_text(f'#!/bin/sh\nexec {sys.executable} -m venv --without-pip "$3"\n')
    quick.chmod(0o755)
    witness = venv / "witness"
    witness.touch()
    setup.make_environment(str(quick), venv)
    assert witness.exists()
    (venv / setup.MARKER).touch()
    setup.make_environment(str(quick), venv)
    assert not witness.exists()
    assert (venv / "pyvenv.cfg").exists()
    assert (venv / setup.MARKER).exists(), "it is not whole before the packages are in it"


def test_a_ready_environment_is_reused_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "local").mkdir()
    for name in ("requirements.txt", "pyproject.toml", "local/setup.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / setup.STAMP).write_text(setup.fingerprint(tmp_path))
    setup.prepare(tmp_path, "/no/such/python")
    assert capsys.readouterr().out == ""


def test_make_finds_set_up_and_its_helpers(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "local", tmp_path / "local")
    for name in ("requirements.txt", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / setup.STAMP).write_text(setup.fingerprint(tmp_path))
    make = ["/usr/bin/env", "make", "-s", "setup"]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_requirements_are_pinned_and_portable() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert "torch==2.13.0" in lines
    for line in lines:
        name, _, version = line.partition("==")
        assert name and version and "+" not in version and "/" not in line, line
    pins = dict(line.split("==") for line in lines)
    assert pins["pyspark"] == pins["pyspark-client"]  # they write the same files


def test_makefile_says_which_targets_there_are() -> None:
    done = subprocess.run(["/usr/bin/env", "make", "-s"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for target in (
        "make doctor",
        "make run",
        "make test",
        "make audit",
        "make lint",
        "make clean",
        "make bench-%",
    ):
        assert target in done.stdout
