"""What an evaluation leaves: lines on the screen, a page, rows beside those of other names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.tables import Store
from jobs.support.evaluating import Span, checks
from jobs.support.judged_hours import HoursPlan, Loaded, Say
from jobs.support.judging import Judged
from jobs.support.metrics_file import NDCG
from jobs.support.report_page import report_page
from jobs.support.reporting import history_lines, report_of
from jobs.support.verdicts import Verdict

__all__ = ["headline", "keep", "page_of", "tell", "write_page"]


def tell(verdict: Verdict, say: Say) -> None:
    """A line for every role and label."""
    for j in verdict.judged:
        if not len(j.ndcg):
            say(f"{j.label:10} {j.role:18} no mature group that has both labels yet")
            continue
        low, high = j.intervals["ndcg_at_10"]
        say(
            f"{j.label:10} {j.role:18} v{j.version:4} NDCG@10 {j.metrics['ndcg_at_10']:.4f} "
            f"[{low:.4f}, {high:.4f}] {_aucs(j)}({j.metrics['groups']:.0f} groups)"
        )


def _aucs(j: Judged) -> str:
    if "auc" not in j.metrics:
        return ""
    return f"AUC {j.metrics['auc']:.4f} GAUC {j.metrics['gauc']:.4f} "


def headline(verdict: Verdict) -> dict[str, Any]:
    """NDCG@10 by role, then by label, for a summary's details."""
    found: dict[str, dict[str, float | None]] = {}
    for j in verdict.judged:
        found.setdefault(j.role, {})[j.label] = j.metrics.get("ndcg_at_10")
    return {NDCG: found}


def page_of(
    store: Store, span: Span, verdict: Verdict, plan: HoursPlan, loaded: Loaded, evaluation: str,
    say: Say, notes: Sequence[str] = (),
) -> str:  # fmt: skip
    """The report's page; checks that failed are said as well."""
    before, checked = history_lines(store, verdict, span, evaluation), checks(store, plan, loaded)
    for line in checked:
        if line.level == "fail":
            say(f"check failed: {line.name}: expected {line.expected}; seen {line.seen}")
    return report_page(report_of(verdict, plan, span, evaluation, before, checked, notes))


def write_page(path: Path | None, text: str, say: Say) -> None:
    """Write a page where one was asked for."""
    if path is not None:
        path.write_text(text, encoding="utf-8")
        say(f"page: {path}")


def keep(
    store: Store, rows: pa.Table, table: str, names: Sequence[str], hour: str, evaluation: str
) -> int | None:
    """Commit the partition: ``rows``, which are of ``names``, and what evaluations of other names
    left there; its snapshot."""
    where = {"hour": hour, "evaluation": evaluation}
    there = store.read(table, [hour], where={"evaluation": evaluation})
    mine = pc.is_in(there["name"], value_set=pa.array(names))
    others = there.filter(pc.invert(mine)).select(rows.column_names)
    return store.commit_slice(pa.concat_tables([others.cast(rows.schema), rows]), table, where)
