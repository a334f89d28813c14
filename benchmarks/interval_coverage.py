"""How often the 95 % interval of a difference of two rankers holds the true difference.

    make bench-coverage

Worlds of clicks, each with a true difference that is known exactly (tests/models/click_worlds.py).
Of each come some requests; the interval of `paired_bootstrap` on them either holds the truth or
not. The share of worlds where it does is printed with its own exact binomial interval (Clopper and
Pearson, Biometrika 26, 1934); the run fails outside 93 to 97 %.

Its name is not coverage.py: numba imports a module of that name where it finds one.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from typing import Any

import numpy as np
from measuring import ROOT
from scipy.stats import binomtest

sys.path.insert(0, str(ROOT))  # the tests are not installed

from tests.models.click_worlds import covered

RESULTS = ROOT / "benchmarks" / "results" / "coverage.jsonl"
LEVEL, RESAMPLES = 0.95, 1000
WANTED = (0.93, 0.97)


def measure(worlds: int, requests: int, seed: int) -> dict[str, Any]:
    """The share of worlds whose interval holds the truth, as a result line."""
    started = time.monotonic()
    streams = np.random.SeedSequence(seed).spawn(worlds)
    held = [covered(np.random.default_rng(s), requests, LEVEL, RESAMPLES) for s in streams]
    found = binomtest(sum(held), worlds).proportion_ci(LEVEL, method="exact")
    share = sum(held) / worlds
    return {
        "bench": "coverage", "case": f"95 % interval of {requests:,} requests",
        "ours": round(share, 4), "peer": "nominal", "peer_version": "level", "theirs": LEVEL,
        "unit": "share of worlds", "ratio": round(share / LEVEL, 4), "ours_peak_mb": None,
        "theirs_peak_mb": None,
        "quality": {"worlds": worlds, "held": sum(held), "resamples": RESAMPLES, "seed": seed,
                    "binomial_interval": [round(found.low, 4), round(found.high, 4)],
                    "seconds": round(time.monotonic() - started, 1)},
        "repetitions": 1, "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--requests", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    lines = [measure(arguments.worlds, many, arguments.seed) for many in arguments.requests]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    print(text, end="")
    RESULTS.write_text(text)
    return 0 if all(WANTED[0] <= line["ours"] <= WANTED[1] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
