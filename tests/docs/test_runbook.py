"""docs/runbook.md, the alert rules and the metrics agree, and every command is taken."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.support.metrics_file import FOLDER, METRICS
from local import announce

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "runbook.md").read_text()
RULES_FILE = ROOT / "docker" / "prometheus" / "alerts.yaml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]
]
JOBS = {path.stem for path in (ROOT / "jobs").glob("*.py")} - {"__init__"}
SPARK = {"build_samples", "extract_features", "build_graph", "bootstrap"}
LABELS = {"batch_job", "model", "evaluation", "status", "reason", "step", "role", "label"}

BLOCKS = re.findall(r"^ *```bash\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`((?:python|spark-submit|airflow) [^`]+)`", PAGE)
LINES = sorted({line.strip() for text in BLOCKS for line in text.splitlines()} | {*INLINE})
ALERTS = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
SECTIONS = dict(zip(ALERTS, re.split(r"^## .+$", PAGE, flags=re.MULTILINE)[1:], strict=True))


def test_every_metric_of_a_rule_is_written() -> None:
    used = {name for rule in RULES for name in re.findall(r"\brankmill_\w+", rule["expr"])}
    assert used and used <= set(METRICS)
    named = {name for name in re.findall(r"\b(rankmill_\w+)`", PAGE) if "prom" not in name}
    assert named and named <= set(METRICS)


def test_every_label_of_a_rule_is_written_and_every_job_exists() -> None:
    for rule in RULES:
        matchers = re.findall(r'(\w+)\s*(?:=~|!=|=)\s*"([^"]*)"', rule["expr"])
        assert {label for label, _ in matchers} <= LABELS, rule["alert"]
        named = {job for label, jobs in matchers if label == "batch_job" for job in jobs.split("|")}
        assert named <= JOBS, rule["alert"]
        shown = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
        assert set(shown) <= LABELS, rule["alert"]


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    assert [rule["alert"] for rule in RULES] == ALERTS
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "warn")


@pytest.mark.parametrize("alert", ALERTS)
def test_a_section_says_what_causes_it_what_mends_it_and_when_it_is_mended(alert: str) -> None:
    section = SECTIONS[alert]
    assert re.search(r"^1\. ", section, re.MULTILINE), "causes, the likeliest first"
    assert re.search(r"^(\w.*\. )?Mended (when|with) ", section, re.MULTILINE)
    assert "`" in section


def test_links_lead_somewhere() -> None:
    headings = [*ALERTS, *re.findall(r"^### (.+)$", PAGE, re.MULTILINE)]
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        assert (ROOT / "docs" / path).exists(), target
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_taken(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "airflow":
        return  # tests/dags parses these: Airflow's settings belong to those tests
    if words[:2] == ["-m", "local.announce"]:
        assert program == ".venv/bin/python"
        announce.build_parser().parse_args(words[2:])
        return
    path, *given = words
    job = Path(path).stem
    assert path == f"jobs/{job}.py" and job in JOBS
    assert program == ("spark-submit" if job in SPARK else "python")
    importlib.import_module(f"jobs.{job}").build_parser().parse_args(given)


def test_there_are_commands() -> None:
    assert len(LINES) > 20
    assert sum(line.startswith("airflow") for line in LINES) > 5


def test_the_readme_knows_the_variable_and_the_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.search(rf"^\| `{FOLDER}` \|", readme, re.MULTILINE)
    assert "(docs/runbook.md)" in readme
