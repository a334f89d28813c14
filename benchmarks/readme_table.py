"""Write the measured tables of README.md from benchmarks/results/, each between its markers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def results(name: str = "*") -> Iterator[dict[str, Any]]:
    """The result lines, in the order of files and lines."""
    for path in sorted(RESULTS.glob(f"{name}.jsonl")):
        yield from (json.loads(line) for line in path.read_text().splitlines())


def shown(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, float) else str(value)


def bench() -> Iterator[str]:
    """Every case beside its peer, but for those that have a table of their own."""
    yield "| case | Rankmill | peer | peer's | ratio | peak MB | date, machine |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for r in results():
        if r["bench"] not in TABLES:
            cells = (shown(r[key]) for key in ("ours", "peer", "theirs", "ratio", "ours_peak_mb"))
            case = f"{r['bench']} {r['case']} ({r['unit']})"
            yield f"| {case} | {' | '.join(cells)} | {r['date']}, {r['cores']} cores |"


def policies() -> Iterator[str]:
    """What rankers are worth beside what their NDCG from logs says."""
    yield (
        "| ranker in charge | clicks, orders, seconds of stay per request (truth) "
        "| NDCG@10, logged slates | NDCG@10, random slates |"
    )
    yield "| --- | --- | --- | --- |"
    for r in sorted(results("policies"), key=lambda r: float(r["ours"])):
        q = r["quality"]
        ndcg = (
            f"{q[key][0]:.3f} ± {q[key][1]:.3f}" for key in ("ndcg_on_logged", "ndcg_on_random")
        )
        value = f"{r['ours']:.2f}, {q['orders']:.3f}, {q['stay_seconds']:.0f}"
        yield f"| {r['case']} | {value} | {' | '.join(ndcg)} |"


def ladder() -> Iterator[str]:
    """Every ranker on the rows of a source, by task."""
    yield (
        "| rows | ranker | task | NDCG@10 | minus the trees' [95 %] | AUC | GAUC | log loss "
        "| parameters | training, s | 500 candidates, ms |"
    )
    yield f"|{' --- |' * 11}"
    for r in results("ladder"):
        q = r["quality"]
        mean, low, high = q["difference"]
        beside = "" if q["model"] == "gbdt" else f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
        size = "-" if q["parameters"] is None else f"{q['parameters']:,}"
        loss = "-" if q["log_loss"] is None else f"{q['log_loss']:.4f}"
        yield (
            f"| {q['source']} | {q['model']} | {q['task']} | {r['ours']:.4f} | {beside} "
            f"| {q['auc']:.4f} | {q['gauc']:.4f} | {loss} | {size} "
            f"| {q['train_seconds']:.0f} | {q['score_500_ms']:.1f} |"
        )


def graph_features() -> Iterator[str]:
    """What rankers gain by the graph, by the rows that are told."""
    tasks = ("click", "long_view")
    heads = (f"{task} {metric}" for metric in ("AUC", "NDCG@10") for task in tasks)
    yield f"| rows | ranker | told | known | {' | '.join(heads)} |"
    yield f"|{' --- |' * 8}"
    cases: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for r in results("graph_features"):
        q = r["quality"]
        case = q["source"], f"{q['model']} + {q['variant']}", q["population"]
        cases.setdefault(case, {})[q["task"]] = q
    for (source, ranker, told), by_task in cases.items():
        apart = (
            _difference(by_task[task][f"{metric}_difference"])
            for metric in ("auc", "ndcg")
            for task in tasks
        )
        click = by_task["click"]
        rows = f"{told} ({click['rows']:,}) | {click['similarity_known']:.0%}"
        yield f"| {source} | {ranker} | {rows} | {' | '.join(apart)} |"


def gbdt_ablation() -> Iterator[str]:
    """What a change to V1 does to NDCG@10, by label."""
    labels = ("click", "long_view", "conversion", "stay")
    heads = " | ".join(f"NDCG@10, {label}" for label in labels)
    yield f"| rows | variant | features | AUC, click | {heads} |"
    yield f"|{' --- |' * 8}"
    cases: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for r in results("gbdt_ablation"):
        q = r["quality"] | {"ndcg": r["ours"]}
        cases.setdefault((q["source"], q["variant"]), {})[q["label"]] = q
    for (source, variant), by_label in cases.items():
        cells = (_beside_base(by_label.get(label)) for label in labels)
        q = by_label["click"]
        beside = f"{q['click_auc']:.4f}"
        if q["part"] != "base":
            beside = _difference(q["click_auc_difference"])
        head = f"{source} | {variant} | {q['features']} | {beside}"
        yield f"| {head} | {' | '.join(cells)} |"


def _beside_base(q: dict[str, Any] | None) -> str:
    if q is None:
        return "-"
    if q["part"] == "base":
        return f"{q['ndcg']:.4f} ({q['groups']:,} groups)"
    return _difference(q["difference"])


def _difference(bounds: list[float | None]) -> str:
    """A mean with its interval; what is not defined (too few groups) is a dash."""
    return "-" if None in bounds else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*bounds)


def gbdt_leaves() -> Iterator[str]:
    """A linear model on the leaves beside the trees alone."""
    yield "| rows | task | what is told by | normalised entropy | of the trees alone's [95 %] |"
    yield f"|{' --- |' * 5}"
    for r in results("gbdt_leaves"):
        q = r["quality"]
        share = "{:.2%} [{:.2%}, {:.2%}]".format(*q["share"])
        yield f"| {q['source']} | {q['task']} | {q['contender']} | {r['ours']:.4f} | {share} |"


def offline_online() -> Iterator[str]:
    """Offline measures by how well they foretell what a ranker brings."""
    yield (
        "| measure | Spearman | Pearson | clicks per request lost by its choice "
        "| intervals that hold the truth |"
    )
    yield "| --- | --- | --- | --- | --- |"
    for r in results("offline_online"):
        q = r["quality"]
        if "pearson" in q:
            held = q.get("intervals_that_hold_the_truth")
            inside = "-" if held is None else f"{held} of {q['rankers']}"
            yield (
                f"| {r['case']} | {r['ours']:.3f} | {q['pearson']:.3f} | {q['clicks_lost']:.3f} "
                f"| {inside} |"
            )


def open_bandit() -> Iterator[str]:
    """What one policy's log says of the other, beside what the other earned."""
    yield (
        "| campaign, policy, log, estimator | clicks per 1,000 impressions [95 %] "
        "| its own log [95 %] | relative error | effective rows, clicks | overlap |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for r in results("open_bandit"):
        q = r["quality"]
        ours, truth = (
            "{:.2f} [{:.2f}, {:.2f}]".format(*(1000 * value for value in values))
            for values in ((r["ours"], *q["interval"]), (q["truth"], *q["truth_interval"]))
        )
        size = f"{q['effective_rows']:,.0f}, {q['effective_rewards']:.1f}"
        yield (
            f"| {r['case']} | {ours} | {truth} | {q['relative_error']:.0%} | {size} "
            f"| {q['overlap']} |"
        )


def off_policy_coverage() -> Iterator[str]:
    """How often intervals hold a known truth."""
    yield (
        "| policies, estimator | intervals that hold the truth [95 %] | bias | error "
        "| effective share | warned of |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for r in results("off_policy_coverage"):
        q = r["quality"]
        low, high = q["interval"]
        warned = 1 - q["levels"]["good"] / q["worlds"]
        yield (
            f"| {r['case']} | {r['ours']:.1%} [{low:.1%}, {high:.1%}] | {q['bias']:+.1%} "
            f"| {q['error']:.1%} | {q['effective_share']:.0%} | {warned:.0%} |"
        )


def replay() -> Iterator[str]:
    """Every cadence of models beside the daily one, by source and label."""
    yield (
        "| rows | cadence | label | NDCG@10 | minus daily's [95 % over groups] | hours better "
        "| AUC minus daily's [95 % over hours] | log loss minus daily's | fits "
        "| seconds of fits, daily's |"
    )
    yield f"|{' --- |' * 10}"
    for r in results("replay"):
        q = r["quality"]
        ndcg, auc, loss = (
            "{:+.4f} [{:+.4f}, {:+.4f}]".format(*q[key])
            for key in ("difference", "auc_difference", "log_loss_difference")
        )
        better, hours = q["hours_better"]
        seconds = ", ".join(f"{value:.0f}" for value in q["fit_seconds"])
        yield (
            f"| {q['source']} | {q['cadence']} | {q['label']} | {r['ours']:.4f} | {ndcg} "
            f"| {better} of {hours} | {auc} | {loss} | {q['fits']} | {seconds} |"
        )


def faults() -> Iterator[str]:
    """What jobs were put through, and what was lost."""
    found = json.loads((RESULTS / "faults.json").read_text())
    yield "| fault | on | tries | before | between | after | ended | healed | lost |"
    yield f"|{' --- |' * 9}"
    for row in found["table"]:
        keys = ("tries", "before", "between", "after", "ended", "healed", "lost")
        cells = " | ".join(shown(row[key]) for key in keys)
        jobs = ", ".join(row["jobs"]) or f"skipped: {row['skipped']}"
        yield f"| {row['fault']}: {row['what']} | {jobs} | {cells} |"


def soak() -> Iterator[str]:
    """What became of seconds and sizes in a week of hours."""
    yield "| what | first day, or hour | last day, or hour | verdict | grows by, an hour |"
    yield f"|{' --- |' * 5}"
    for r in results("soak"):
        q = r["quality"]
        if "verdict" in q:
            said = q["verdict"] if r["ratio"] is None else f"{q['verdict']}, {r['ratio']:.2f} times"
            growth = q.get("growth_per_hour")
            grows = "-" if growth is None else f"{growth[1]:,.3g}"
            what = f"{r['case']} ({r['unit']})"
            yield f"| {what} | {r['theirs']:,} | {r['ours']:,} | {said} | {grows} |"


def big_hour() -> Iterator[str]:
    """An hour's steps by seconds and memory."""
    yield (
        "| step | rows in | rows out | seconds | most memory, MB | largest process | driver "
        "| its JVM | executors' JVMs | their Python |"
    )
    yield f"|{' --- |' * 10}"
    kinds = ("all", "largest", "driver", "driver_jvm", "executor_jvm", "python_workers")
    for r in results("big_hour"):
        q = r["quality"]
        memory = " | ".join(f"{q['peak_mb'][kind]:,}" for kind in kinds)
        cells = f"{q['rows_in']:,} | {q['rows_out']:,} | {r['ours']:,} | {memory}"
        yield f"| {r['case']} | {cells} |"


TABLES = {
    "faults": faults,
    "policies": policies,
    "ladder": ladder,
    "graph_features": graph_features,
    "gbdt_ablation": gbdt_ablation,
    "gbdt_leaves": gbdt_leaves,
    "offline_online": offline_online,
    "open_bandit": open_bandit,
    "off_policy_coverage": off_policy_coverage,
    "replay": replay,
    "soak": soak,
    "big_hour": big_hour,
}


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    for name, table in {"bench": bench, **TABLES}.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if start not in text:
            print(f"README.md has no place for {name}: put {start} and {end} where it shall stand")
            continue
        before, rest = text.split(start)
        lines = "\n".join(table())
        text = f"{before}{start}\n{lines}\n{end}{rest.split(end)[1]}"
    readme.write_text(text)


if __name__ == "__main__":
    main()
