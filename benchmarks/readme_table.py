"""Write the benchmark table of README.md from benchmarks/results/, between its two markers."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- bench -->", "<!-- /bench -->"
HEAD = (
    "| case | Rankmill | peer | peer's | ratio | date, machine |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def rows() -> list[str]:
    """One table row per result line, in the order of files and lines."""
    found = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            r = json.loads(line)
            found.append(
                f"| {r['bench']} {r['case']} ({r['unit']}) | {r['ours']} | {r['peer']} | "
                f"{r['theirs']} | {r['ratio']} | {r['date']}, {r['cores']} cores |"
            )
    return found


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(START)
    after = rest.split(END)[1]
    table = "\n".join([HEAD, *rows()])
    readme.write_text(f"{before}{START}\n{table}\n{END}{after}")


if __name__ == "__main__":
    main()
