"""The audit with the real pip-audit, which asks a service of advisories on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from local import audit

ROOT = Path(__file__).resolve().parents[2]
CANARY = {"package": "jinja2", "id": "PYSEC-2019-217"}
OURS = {"package": "numpy", "id": "PYSEC-2026-9"}

Serve = Callable[..., None]


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return audit.tool(ROOT)
    except audit.AuditError as error:
        pytest.skip(str(error))


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Lets a service answer with the advisories given, as OSV does; nobody else is asked."""
    known: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = asked["package"]["name"]
            found = [one for one in known if one["package"] == name]
            body = json.dumps({"vulns": [vulnerability(one) for one in found]} if found else {})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}/v1/query")
        monkeypatch.setattr(audit, "SERVICES", ("osv",))
        yield lambda *advisories: known.extend(advisories)
        server.shutdown()


def vulnerability(one: dict[str, str]) -> dict[str, Any]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
    affected = {"package": {"name": one["package"], "ecosystem": "PyPI"}, "ranges": ranges}
    return {"id": one["id"], "summary": "harm", "details": "harm", "affected": [affected],
            "modified": "2026-01-01T00:00:00Z", "published": "2026-01-01T00:00:00Z"}  # fmt: skip


@pytest.fixture
def pins(tmp_path: Path) -> str:
    path = tmp_path / "requirements.txt"
    path.write_text("numpy==2.4.6\npyarrow==25.0.1\n")
    return str(path)


@pytest.mark.usefixtures("program")
def test_an_advisory_fails_and_says_what_mends_it(
    serve: Serve, pins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(CANARY, OURS)
    assert audit.main([pins]) == 1
    said = capsys.readouterr().out
    assert "PYSEC-2026-9 numpy 2.4.6: mended in 99; take that, or give a reason" in said
    assert "audited 2 of 2 packages against osv" in said


@pytest.mark.usefixtures("program")
def test_packages_of_which_nothing_is_known_pass(
    serve: Serve, pins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(CANARY)
    assert audit.main([pins]) == 0
    assert capsys.readouterr().out == "[audit] audited 2 of 2 packages against osv\n"


@pytest.mark.usefixtures("serve", "program")
def test_a_service_that_knows_nothing_passes_nothing(
    pins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main([pins]) == 0
    said = capsys.readouterr().out
    assert "NOT AUDITED" in said and "knows of no advisory for jinja2==2.10" in said
    assert "audited 2" not in said


@pytest.mark.usefixtures("program")
def test_a_service_that_does_not_answer_is_said(
    pins: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9/v1/query")
    monkeypatch.setattr(audit, "SERVICES", ("osv",))
    assert audit.main([pins]) == 0
    assert "NOT AUDITED" in capsys.readouterr().out


def test_an_exception_has_a_reason_and_is_told_when_nothing_needs_it(tmp_path: Path) -> None:
    found = audit.Audited("osv", [("A-1", "numpy", "2", "3")], ["torch"], 3)
    assert audit.verdict(found, {})[0] == 1
    status, said = audit.verdict(found, {("A-1", "numpy"): "never called", ("A-2", "x"): "old"})
    assert status == 0
    assert said[0] == "A-1 numpy 2: never called"
    assert "A-2 x is no longer found" in said[1]
    assert said[2] == "NOT AUDITED, unknown to osv: torch"
    assert said[3] == "audited 2 of 3 packages against osv"
    (tmp_path / "advisories.txt").write_text("# why\nA-1 numpy\n")
    with pytest.raises(ValueError, match="a reason"):
        audit.exceptions(tmp_path / "advisories.txt")


def test_every_exception_of_the_project_is_of_a_pinned_package() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    names = {line.partition("==")[0].lower() for line in lines}
    assert {package for _, package in audit.exceptions(ROOT / audit.EXCEPTIONS)} <= names
