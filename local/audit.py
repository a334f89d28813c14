"""Looks up the pinned packages among published advisories: ``make audit``, a part of ``make test``.

pip-audit says that nothing is known also where the service it asked knows nothing at all. So each
service is first asked about a version that has had an advisory for years; one that does not know
of it, or does not answer, audits nothing. Then this says so, neither passes the packages nor fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.setup import ROOT

__all__ = ["EXCEPTIONS", "AuditError", "Audited", "audited", "exceptions", "main", "tool"]

TOOL = Path(".ci") / "audit-requirements.txt"
EXCEPTIONS = Path(".ci") / "advisories.txt"
SERVICES = ("pypi", "osv")
KNOWN_BAD = "jinja2==2.10"
"""Escapes its sandbox (CVE-2019-10906)."""
_SECONDS = "10"


class AuditError(Exception):
    """The packages could not be audited; the message says why."""


@dataclass
class Audited:
    """What a service says: advisories (id, package, version, mended in), and packages it lacks."""

    service: str
    advisories: list[tuple[str, str, str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    packages: int = 0


def tool(root: Path) -> Path:
    """pip-audit, installed at the first call into an environment of its own.

    Raises:
        AuditError: when it cannot be installed.
    """
    folder, wanted = root / ".rankmill" / "audit", (root / TOOL).read_text()
    stamp, program = folder / "installed.txt", folder / "bin" / "pip-audit"
    if stamp.exists() and stamp.read_text() == wanted:
        return program
    venv.create(folder, with_pip=True, clear=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(root / TOOL)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AuditError(f"pip-audit could not be installed: {_last(done.stderr)}")
    stamp.write_text(wanted)
    return program


def audited(program: Path, requirements: Path) -> Audited:
    """What the first service that knows of advisories says of the pins in ``requirements``.

    Raises:
        AuditError: when no service does, with what each of them said.
    """
    said = []
    for service in SERVICES:
        try:
            with tempfile.TemporaryDirectory() as folder:
                known = Path(folder) / "known.txt"
                known.write_text(f"{KNOWN_BAD}\n")
                if not _ask(program, service, known).advisories:
                    raise AuditError(f"it knows of no advisory for {KNOWN_BAD}")
            return _ask(program, service, requirements)
        except AuditError as error:
            said.append(f"{service}: {error}")
    raise AuditError("; ".join(said))


def _ask(program: Path, service: str, requirements: Path) -> Audited:
    """One call of pip-audit; it reads pins alone and resolves nothing."""
    done = subprocess.run(
        [str(program), "--requirement", str(requirements), "--no-deps", "--disable-pip",
         "--vulnerability-service", service, "--timeout", _SECONDS,
         "--progress-spinner", "off", "--format", "json"],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    try:
        rows: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        raise AuditError(_last(done.stderr) or "no answer") from error
    result = Audited(service, packages=len(rows))
    for row in rows:
        if "skip_reason" in row:
            result.skipped.append(row["name"])
        for found in row.get("vulns", []):
            mended = ", ".join(found.get("fix_versions") or []) or "no version yet"
            result.advisories.append((found["id"], row["name"], row["version"], mended))
    return result


def _last(text: str) -> str:
    """The last line of an error, without a traceback."""
    return (text.strip().splitlines() or [""])[-1][:300]


def exceptions(path: Path) -> dict[tuple[str, str], str]:
    """The reasons by (advisory, package).

    Raises:
        ValueError: for a line without a reason.
    """
    found = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            words = line.split(None, 2)
            if len(words) < 3:
                raise ValueError(f"{path.name}: {line!r} must be an id, a package and a reason")
            found[words[0], words[1]] = words[2]
    return found


def verdict(result: Audited, excused: dict[tuple[str, str], str]) -> tuple[int, list[str]]:
    """Exit status, and what to say: 1 where an advisory has no reason to be let pass."""
    said, status = [], 0
    for identifier, package, version, mended in result.advisories:
        reason = excused.get((identifier, package))
        if reason is None:
            status = 1
        end = reason or f"mended in {mended}; take that, or give a reason in {EXCEPTIONS}"
        said.append(f"{identifier} {package} {version}: {end}")
    there = {(identifier, package) for identifier, package, _, _ in result.advisories}
    said += [
        f"{i} {p} is no longer found: take it out of {EXCEPTIONS}"
        for i, p in excused.keys() - there
    ]
    if result.skipped:
        said.append(f"NOT AUDITED, unknown to {result.service}: {', '.join(result.skipped)}")
    count = result.packages - len(result.skipped)
    said.append(f"audited {count} of {result.packages} packages against {result.service}")
    return status, said


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, also when nothing could be audited, which is said; 1 for an advisory."""
    (requirements,) = [Path(p) for p in argv or sys.argv[1:]] or [ROOT / "requirements.txt"]
    try:
        status, said = verdict(audited(tool(ROOT), requirements), exceptions(ROOT / EXCEPTIONS))
    except AuditError as error:
        status, said = 0, [f"NOT AUDITED: no service of advisories could be asked ({error})"]
    for line in said:
        print(f"[audit] {line}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
