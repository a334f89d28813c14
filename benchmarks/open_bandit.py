"""Open Bandit: what one policy's log says of the other, beside what the other really earned.

    python benchmarks/open_bandit.py --data ../shared/data/open_bandit

ZOZOTOWN served two policies at random to its visitors, ``random`` and ``bts`` (Bernoulli Thompson
sampling), and logged the propensity of every impression (Saito et al., Open Bandit Dataset and
Pipeline, NeurIPS 2021). So the click rate of either can be estimated from the log of the other by
IPS, SNIPS and doubly robust, and compared with its own log: relative estimation error as in section
5 of the paper, |estimate - truth| / truth. The truth is a click rate of some ten thousand rows
itself, so its interval stands beside it. One JSON line per campaign, direction and estimator.

The chances that a target policy had of what the other showed are, for ``random``, 1 / items. Those
of ``bts`` are not in the log of ``random``, and it learned while it served, so they are taken

    observed   as the share of each item in bts's own log, by position: the week's average policy.
               Its clicks are not read, but the shares are themselves estimates from some thousand
               rows, which no interval here knows of
    prior      from the Beta priors that were published with the data, as obp simulates them: the
               policy of the first moment, before it learned from this week

The doubly robust estimate reads smoothed click rates by item, cross-fitted over five folds of rows.
The peer is obp, on the same rows, target and predictions: the values must agree to 1e-9.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are not installed

from benchmarks.measuring import peers_python, watched  # noqa: E402
from feature_store.sources.base import SourceError  # noqa: E402
from feature_store.sources.open_bandit import (  # noqa: E402
    CAMPAIGNS,
    POLICIES,
    POSITIONS,
    OpenBanditSource,
)
from models.metrics import Interval, paired_bootstrap  # noqa: E402
from models.off_policy import Estimate, doubly_robust, ips, snips, weigh  # noqa: E402

RESULTS: Final = ROOT / "benchmarks" / "results" / "open_bandit.jsonl"
PEER: Final = ROOT / "benchmarks" / "peers" / "off_policy_obp.py"
SEED, RESAMPLES = 20191124, 10_000
FOLDS, WEIGHT = 5, 100.0  # of the reward model: folds, and impressions that its prior is worth
AGREE = 1e-9

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Log:
    """N impressions of one policy."""

    click: Floats
    item: Ints
    place: Ints  # position - 1
    propensity: Floats

    @property
    def truth(self) -> Interval:
        """The policy's own click rate, with its interval."""
        return paired_bootstrap(self.click, SEED, RESAMPLES)


def read(path: Path, policy: str, campaign: str) -> Log:
    """The log of a policy, through the source that the pipeline reads it by.

    Raises:
        SourceError: for files that are missing or wrong.
    """
    source = OpenBanditSource(path=path, policy=policy, campaign=campaign)
    events = pa.Table.from_batches(source.events(*source.span()))
    shown, clicked = (
        events.filter(pc.equal(events["action"], action)) for action in ("impression", "click")
    )
    click = pc.is_in(shown["impression_id"], value_set=clicked["impression_id"].combine_chunks())
    return Log(
        click.to_numpy().astype(np.float64),
        pc.cast(shown["item_id"], pa.int64()).to_numpy(),
        pc.cast(shown["position"], pa.int64()).to_numpy() - 1,
        shown["propensity"].to_numpy(),
    )


def observed(log: Log, items: int) -> Floats:
    """(items, places): the share of each item among what was shown at the place."""
    cell = log.item * len(POSITIONS) + log.place
    shown = np.bincount(cell, minlength=items * len(POSITIONS)).reshape(items, len(POSITIONS))
    return np.asarray(shown / shown.sum(axis=0))


def prior(campaign: str, items: int, folder: Path) -> Floats:
    """(items, places): the published policy of the first moment."""
    out = folder / f"{campaign}.npy"
    values = (campaign, str(items), str(len(POSITIONS)), str(SEED), str(out))
    watched([peers_python(), str(PEER), "prior", *values])
    return np.asarray(np.load(out))


def cross_fitted(log: Log, items: int) -> tuple[Floats, Ints]:
    """Click rates (folds, items) told from the other folds, and the fold of each row (N,)."""
    fold = np.random.default_rng(SEED).integers(0, FOLDS, len(log.click))
    rates = np.empty((FOLDS, items))
    for number in range(FOLDS):
        others = fold != number
        shown = np.bincount(log.item[others], minlength=items)
        clicks = np.bincount(log.item[others], log.click[others], items)
        rates[number] = (clicks + WEIGHT * log.click[others].mean()) / (shown + WEIGHT)
    return rates, fold


def estimates(log: Log, target: Floats, rates: Floats, fold: Ints) -> list[Estimate]:
    """What the log says of the ``target`` (items, places), by every estimator."""
    rows = weigh(log.click, log.propensity, target[log.item, log.place])
    predicted = rates[fold, log.item]
    expected = (rates @ target)[fold, log.place]
    return [
        ips(rows, SEED, RESAMPLES),
        snips(rows, SEED, RESAMPLES),
        doubly_robust(rows, predicted, expected, SEED, RESAMPLES),
    ]


def by_obp(log: Log, target: Floats, rates: Floats, fold: Ints, folder: Path) -> dict[str, Any]:
    """obp's values of the same, by estimator, and its version."""
    path = folder / "task.npz"
    np.savez(
        path, reward=log.click, action=log.item, position=log.place, pscore=log.propensity,
        target=target, predicted=np.repeat(rates[:, :, None], len(POSITIONS), axis=2), fold=fold,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(
        watched([peers_python(), str(PEER), "estimate", str(path)]).last_line
    )
    return found


def directions(logs: Mapping[str, Log], campaign: str, folder: Path) -> Iterator[tuple[Any, ...]]:
    """(name, log that is read, log of the truth, target) of every direction."""
    items = 1 + max(int(log.item.max()) for log in logs.values())
    random, bts = logs["random"], logs["bts"]
    yield "bts (observed) from random", random, bts, observed(bts, items)
    yield "bts (prior) from random", random, bts, prior(campaign, items, folder)
    yield "random from bts", bts, random, np.full((items, len(POSITIONS)), 1 / items)


def lines(logs: Mapping[str, Log], campaign: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The results of a campaign; ends the benchmark where obp gives other values."""
    for name, log, other, target in directions(logs, campaign, folder):
        rates, fold = cross_fitted(log, len(target))
        theirs = by_obp(log, target, rates, fold, folder)
        for found in estimates(log, target, rates, fold):
            peer = theirs[found.estimator]
            if abs(found.value - peer) > AGREE:
                raise SystemExit(f"{name}, {found.estimator}: {found.value} and obp's {peer}")
            yield line(f"{campaign}, {name}, {found.estimator}", found, other.truth, theirs)


def line(case: str, found: Estimate, truth: Interval, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """A result: ours and the peer's value, and in ``quality`` what both are worth."""
    overlap = found.overlap
    numbers = {
        name: round(getattr(overlap, name), 5)
        for name in ("effective_rows", "effective_share", "largest_share", "effective_rewards",
                     "mean_weight", "zero_share")
    }  # fmt: skip
    return {
        "bench": "open_bandit", "case": case, "ours": round(found.value, 6), "peer": "obp",
        "peer_version": theirs["version"], "theirs": round(theirs[found.estimator], 6),
        "unit": "clicks per impression", "ratio": 1.0,
        "ours_peak_mb": None, "theirs_peak_mb": None,
        "quality": {
            "interval": [round(found.low, 6), round(found.high, 6)],
            "truth": round(truth.mean, 6),
            "truth_interval": [round(truth.low, 6), round(truth.high, 6)],
            "relative_error": round(abs(found.value - truth.mean) / truth.mean, 4),
            "rows": overlap.rows, **numbers, "overlap": overlap.level, "warning": overlap.warning,
        },
        "repetitions": 1, "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/open_bandit")
    path = parser.parse_args().data
    results = []
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as folder:
        for campaign in CAMPAIGNS:
            try:
                logs = {policy: read(path, policy, campaign) for policy in POLICIES}
            except SourceError as error:
                print(f"campaign {campaign} is left out: {error}", file=sys.stderr)
                continue
            for result in lines(logs, campaign, Path(folder)):
                results.append(result)
                print(json.dumps(result), flush=True)
    if not results:
        raise SystemExit(f"{path} holds no campaign; see the messages above")
    RESULTS.write_text("".join(json.dumps(result) + "\n" for result in results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
