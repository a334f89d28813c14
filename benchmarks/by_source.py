"""Benchmarks that tell several sources apart: their arguments, and the lines that they keep."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["kept_lines", "renewed", "source_parser", "sources_of"]

ROOT = Path(__file__).resolve().parents[1]
Line = dict[str, Any]


def source_parser(doc: str | None, sources: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of ``--data`` and ``--source``."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--source", choices=sources, help="only this one")
    return parser


def sources_of(given: argparse.Namespace, sources: Sequence[str]) -> Sequence[str]:
    """The one that was asked for, or all."""
    return [given.source] if given.source else sources


def kept_lines(results: Path) -> list[Line]:
    """What ``results`` keeps; nothing where there is no such file."""
    return [json.loads(t) for t in results.read_text().splitlines()] if results.is_file() else []


def renewed(results: Path, source: str, lines: Iterable[Line], keep: bool = True) -> None:
    """Print the lines of a source as they come, and keep them in place of those that it had.

    Nothing is kept of a source that was not measured to its end.

    Args:
        keep: whether to keep them at all.
    """
    found = []
    for line in lines:
        print(json.dumps(line), flush=True)
        found.append(line)
    if keep:
        others = [line for line in kept_lines(results) if line["quality"]["source"] != source]
        results.write_text("".join(json.dumps(line) + "\n" for line in [*others, *found]))
