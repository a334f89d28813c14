"""Decide whether the hour's candidate becomes champion, and move the alias."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.tables import Store
from jobs.support import promotions
from jobs.support.arguments import job_parser, run_hours
from jobs.support.embeddings import embedding_before, is_embedding
from jobs.support.fencing import claim, run_token
from jobs.support.metrics_file import CHAMPION as TOLD
from jobs.support.metrics_file import champion_of
from jobs.support.plans import DEFAULT_NAME, find_candidate, is_daily, plan_of
from jobs.support.settings import PromotionSettings, Settings, SettingsError, load_settings
from jobs.support.stopwatch import STEPS, Stopwatch
from jobs.support.summary import RefusedError, Summary, main_of, progress, skipped
from models.mechanical_check import UNAVAILABLE
from models.metrics import paired_bootstrap
from models.registry import Registry, Version
from models.versions import RegistryUnavailableError

__all__ = ["Evidence", "build_parser", "decide", "main", "promote", "run"]

JOB = "promote"
CHAMPION, CHALLENGER = "champion", "challenger"

Differences = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """Bounds of NDCG differences, candidate minus other; empty arrays where there is no other.

    Attributes:
        pooled: per group, candidates minus champions over the pooled hours.
        against_yesterday: the same against the champions of a day earlier.
        latest: candidate minus champion on the decision hour alone.
    """

    pooled: Differences
    against_yesterday: Differences
    latest: Differences


def decide(
    evidence: Evidence, has_champion: bool, rules: PromotionSettings, resamples: int, seed: int
) -> tuple[bool, str, dict[str, float]]:
    """The promotion rule.

    Promote when the lower 95 % bound of the pooled differences is above -margin, that against
    yesterday's champions too, and the upper bound on the decision hour alone is not below -margin.
    With fewer than ``min_groups`` pooled groups the champion stays.

    Returns:
        Whether to promote, why, and the numbers behind it.
    """
    if not has_champion:
        return True, "there is no champion yet", {}
    numbers: dict[str, float] = {"groups": float(len(evidence.pooled))}
    if len(evidence.pooled) < rules.min_groups:
        reason = (
            f"{len(evidence.pooled)} groups compared with a champion, fewer than the "
            f"{rules.min_groups} that a replacement needs; the champion stays"
        )
        return False, reason, numbers
    for key in ("pooled", "against_yesterday", "latest"):
        values: Differences = getattr(evidence, key)
        if len(values):
            interval = paired_bootstrap(values, seed, resamples)
            numbers |= {
                key: interval.mean,
                f"{key}_low": interval.low,
                f"{key}_high": interval.high,
            }
    worse = [
        f"{key} differences may be as low as {numbers[f'{key}_low']:.4f}"
        for key in ("pooled", "against_yesterday")
        if numbers.get(f"{key}_low", 0.0) <= -rules.margin
    ]
    if numbers.get("latest_high", 0.0) < -rules.margin:
        worse.append(f"the decision hour is worse: at best {numbers['latest_high']:.4f}")
    if worse:
        return False, f"margin {rules.margin:g}: {'; '.join(worse)}; the champion stays", numbers
    return True, f"not worse than the champion by more than {rules.margin:g} NDCG@10", numbers


def _paired(groups: pa.Table, other: str) -> Differences:
    """Candidate minus ``other`` per (hour, group) where both were judged."""
    mine = groups.filter(pc.equal(groups["role"], "candidate"))
    theirs = groups.filter(pc.equal(groups["role"], other))
    keys = ["hour", "group_id"]
    joined = mine.select([*keys, "ndcg_at_10"]).join(
        theirs.select([*keys, "ndcg_at_10"]), keys, join_type="inner", right_suffix="_other"
    )
    joined = joined.sort_by([(key, "ascending") for key in keys])
    found: Differences = pc.subtract(joined["ndcg_at_10"], joined["ndcg_at_10_other"]).to_numpy()
    return found


def _evidence(
    store: Store, name: str, hour: str, label: str, pool_hours: int, evaluation: str
) -> Evidence:
    """What was judged of the candidates of the last ``pool_hours``.

    A daily evaluation stands at the first hour of its day: of the usual 24 hours it is the one.
    """
    hours = hr.hour_range(hr.add(hour, 1 - pool_hours), hour)
    groups = store.read("evaluation_groups", hours, where={"evaluation": evaluation})
    own = pc.or_(pc.equal(groups["name"], name), pc.equal(groups["name"], "popularity"))
    groups = groups.filter(pc.and_(own, pc.equal(groups["label"], label)))
    latest = groups.filter(pc.equal(groups["hour"], hour))
    return Evidence(
        _paired(groups, "champion"), _paired(groups, "champion_yesterday"),
        _paired(latest, "champion"),
    )  # fmt: skip


def _require_judged(store: Store, candidate: Version, hour: str, evaluation: str) -> None:
    """Refuse a candidate that was not judged itself: what is pooled of earlier ones, or of another
    version of the hour, says nothing of it."""
    rows = store.read("evaluations", [hour], where={"evaluation": evaluation})
    mine = pc.and_(pc.equal(rows["name"], candidate.name), pc.equal(rows["role"], "candidate"))
    name, number = candidate.name, str(candidate.version)
    if number not in rows.filter(mine)["version"].to_pylist():
        raise RefusedError(
            f"{name} version {number} was not judged at {hour} ({evaluation}). "
            f"Run: evaluate.py --name {name} --hour {hour} --evaluation {evaluation}"
        )


def _mechanical(tracking_uri: str, version: Version) -> str | None:
    """What is wrong with a version when a fresh process loads and scores it; None when nothing.

    Raises:
        RegistryUnavailableError: when the registry did not answer, which must decide nothing.
    """
    command = [
        sys.executable, "-m", "models.mechanical_check", "--tracking-uri", tracking_uri,
        "--name", version.name, "--version", str(version.version),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    if done.returncode == 0:
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    said = lines[-1] if lines else f"exit status {done.returncode}"
    if done.returncode == UNAVAILABLE:
        raise RegistryUnavailableError(said)
    return said


def _finish(store: Store, registry: Registry, row: Mapping[str, Any]) -> None:
    """Carry out an intent: move the alias, then record it as done. Repeating it changes nothing."""
    champion = row["champion"]
    if champion is not None and row["action"] != "keep":
        registry.set_alias(row["name"], CHAMPION, int(champion))
    if row["version"] != champion:
        registry.set_alias(row["name"], CHALLENGER, int(row["version"]))
    promotions.append(store, row, "done")


def _reconcile(store: Store, registry: Registry, name: str) -> None:
    """Finish what a crash left between intent and done."""
    for row in promotions.unfinished(store, name):
        progress(JOB, f"finishing the decision {row['decision_id']} of an interrupted run")
        _finish(store, registry, row)


def _judged(
    store: Store,
    registry: Registry,
    settings: Settings,
    candidate: Version,
    hour: str,
    evaluation: str,
    watch: Stopwatch,
) -> tuple[bool, str, dict[str, float], str | None]:
    """The decision on ``candidate``: promote?, why, the numbers, the champion of the moment.

    Raises:
        RefusedError: for one that would replace a champion and was not judged.
    """
    name = candidate.name
    current = promotions.champion_before(store, name, hour)
    watch.lap("plan")
    wrong = _mechanical(settings.tracking(), candidate)
    watch.lap("mechanical_check")
    if wrong is not None:
        return False, f"the mechanical check failed: {wrong}", {}, current
    serving = registry.alias(name, CHAMPION)
    if serving is not None and serving.tags["data_hour"] > candidate.tags["data_hour"]:
        reason = (
            f"the champion (version {serving.version}) has seen {serving.tags['data_hour']}, the "
            f"candidate only {candidate.tags['data_hour']}; an alias never moves back in data time"
        )
        return False, reason, {}, current
    if is_embedding(name):
        return True, "it loads, and has seen more; what ranks with it is judged", {}, current
    if current is not None:
        _require_judged(store, candidate, hour, evaluation)
    label = settings.evaluation.labels[0]
    pool_hours = settings.promotion.pool_hours
    evidence = _evidence(store, name, hour, label, pool_hours, evaluation)
    accepted, reason, numbers = decide(
        evidence, current is not None, settings.promotion, settings.evaluation.resamples,
        settings.evaluation.seed,
    )  # fmt: skip
    return accepted, reason, numbers, current


def promote(
    store: Store, settings: Settings, name: str, hour: str, token: str, dry: bool,
    evaluation: str = "hourly",
) -> Summary:  # fmt: skip
    """Decide on the version of ``hour`` by an ``evaluation``; a decision that was made stands.

    Intent, alias and done happen under one lock, so that promoters cannot interleave.
    """
    watch = Stopwatch()
    stage = f"{JOB}:{name}"
    writer = claim(store, stage, promotions.ALIASES, token)
    summary = Summary(JOB, [hour])
    registry = Registry(settings.tracking())
    if is_embedding(name):
        candidate = embedding_before(registry, name, hour)
        if candidate is None:  # a day with nothing to walk has none
            why = f"no version of the day that ends before {hour}; embed_graph.py --date makes it"
            return skipped(summary, f"{name}: {why}")
    else:
        chosen = plan_of(store, settings, name, hour)
        if not chosen.complete:
            return skipped(summary, chosen.shortage())
        candidate = find_candidate(registry, chosen)
        if candidate is None:
            raise RefusedError(f"{name} has no version of hour {hour}. Run: {chosen.command}")
    summary.model = {"name": name, "version": candidate.version}
    summary.mlflow_run_url = registry.run_url(candidate.run_id)
    with store.ledger.holding(stage, promotions.ALIASES, writer.token):
        _reconcile(store, registry, name)
        known = promotions.decision(store, name, hour, str(candidate.version))
        made = known or _decided(store, registry, settings, candidate, hour, dry, evaluation, watch)
        watch.lap("move")
    summary.details = {STEPS: watch.seconds, TOLD: _serving(store, registry, name)}
    summary.status = "promoted" if made["action"] == "promote" else "kept"
    summary.message = f"{name} version {candidate.version}: {made['reason']}"
    if dry:
        summary.status = "dry-run"
    progress(JOB, f"{summary.status}: {summary.message}")
    return summary


def _serving(store: Store, registry: Registry, name: str) -> dict[str, Any] | None:
    """Who serves now, and since when."""
    champion = registry.alias(name, CHAMPION)
    if champion is None:
        return None
    since = promotions.serving_since(store, name)
    return champion_of(champion.version, champion.tags, since)


def _decided(
    store: Store, registry: Registry, settings: Settings, candidate: Version, hour: str, dry: bool,
    evaluation: str, watch: Stopwatch,
) -> Mapping[str, Any]:  # fmt: skip
    accepted, reason, numbers, current = _judged(
        store, registry, settings, candidate, hour, evaluation, watch
    )
    watch.lap("decide")
    number = str(candidate.version)
    row = {
        "decision_id": f"{candidate.name}|{hour}|{number}",
        "hour": hour,
        "name": candidate.name,
        "action": "promote" if accepted else "keep",
        "version": number,
        "champion": number if accepted else current,
        "previous": current,
        "reason": reason,
        "evidence": numbers,
    }
    if not dry:
        promotions.append(store, row, "intent")
        _finish(store, registry, row)
    return row


def rollback(store: Store, settings: Settings, name: str, hour: str, token: str) -> Summary:
    """Put the champion before the present one back, as a decision of ``hour``.

    Raises:
        RefusedError: when there is none to go back to.
    """
    stage = f"{JOB}:{name}"
    writer = claim(store, stage, promotions.ALIASES, token)
    registry = Registry(settings.tracking())
    with store.ledger.holding(stage, promotions.ALIASES, writer.token):
        _reconcile(store, registry, name)
        move = promotions.last_move(store, name)
        if move is None:
            raise RefusedError(f"{name} never had another champion; there is nothing to go back to")
        back = move["previous"]
        row = {
            "decision_id": f"{name}|{hour}|rollback|{token}",
            "hour": hour,
            "name": name,
            "action": "rollback",
            "version": back,
            "champion": back,
            "previous": move["champion"],
            "reason": f"rolled back by hand from version {move['champion']}",
            "evidence": {},
        }
        promotions.append(store, row, "intent")
        _finish(store, registry, row)
    summary = Summary(JOB, [hour], "promoted", model={"name": name, "version": back})
    summary.message = f"{name} version {back} serves again"
    summary.details = {TOLD: _serving(store, registry, name)}
    progress(JOB, summary.message)
    return summary


def _show_history(store: Store, name: str) -> Summary:
    for row in promotions.history(store, name):
        if row["stage"] == "done":
            print(f"{row['hour']}  {row['action']:8} v{row['version']:5} "
                  f"champion v{row['champion']}  {row['reason']}")  # fmt: skip
    return Summary(JOB, message=f"decisions on {name}")


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    if arguments.history:
        return _show_history(settings.open_store(), arguments.name)
    hours = run_hours(arguments, settings.open_source().time_zone)
    daily = is_daily(arguments.name) or is_embedding(arguments.name)
    evaluation = arguments.evaluation or ("daily" if daily else "hourly")
    if len(hours) != 1 and (evaluation != "daily" or arguments.date is None):
        raise SettingsError(f"{JOB} decides for one --hour, got {len(hours)} hours")
    store = settings.open_store()
    token = run_token(arguments.run_id)
    # Rankers of a day know nothing of it; embeddings know all of it, and serve from its end.
    hour = hr.add(hours[-1], 1) if is_embedding(arguments.name) else hours[0]
    if arguments.rollback:
        return rollback(store, settings, arguments.name, hour, token)
    return promote(store, settings, arguments.name, hour, token, arguments.dry_run, evaluation)


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Compare the candidates of the last held-out hours with the champions of their moment, "
        "check that the candidate loads and scores in a fresh process, and move the "
        "aliases champion and challenger. Keeping the champion is done as well (exit status 0).",
        "  promote.py --hour 2026-11-11T05\n"
        "  promote.py --date 2026-11-11 --evaluation daily --name mmoe_ranker\n"
        "  promote.py --date 2026-11-11 --name metapath2vec\n"
        "  promote.py --history\n"
        "  promote.py --hour 2026-11-11T06 --rollback\n",
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="registered name [%(default)s]")
    parser.add_argument(
        "--evaluation",
        choices=("hourly", "daily"),
        help="which judgement decides [daily for what is pre-trained by day, else hourly]",
    )
    parser.add_argument("--rollback", action="store_true", help="put the last champion back")
    parser.add_argument("--history", action="store_true", help="print what was decided and why")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
