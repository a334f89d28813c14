"""obp's estimates and its published policy, of benchmarks/open_bandit.py.

python benchmarks/peers/off_policy_obp.py prior CAMPAIGN ITEMS PLACES SEED OUT.npy
python benchmarks/peers/off_policy_obp.py estimate IN.npz
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import numpy as np
from obp.ope import (
    DoublyRobust,
    InverseProbabilityWeighting,
    SelfNormalizedInverseProbabilityWeighting,
)
from obp.policy import BernoulliTS

ESTIMATORS = {
    "ips": InverseProbabilityWeighting,
    "snips": SelfNormalizedInverseProbabilityWeighting,
    "doubly_robust": DoublyRobust,
}


def prior(campaign: str, items: str, places: str, seed: str, out: str) -> dict[str, float]:
    """Bernoulli Thompson sampling as it stood when the log begins: (items, places) chances."""
    policy = BernoulliTS(
        n_actions=int(items), len_list=int(places), is_zozotown_prior=True, campaign=campaign,
        random_state=int(seed),
    )  # fmt: skip
    np.save(out, policy.compute_batch_action_dist(n_rounds=1, n_sim=100_000)[0])
    return {}


def estimate(path: str) -> dict[str, float]:
    given = np.load(path)
    rows = len(given["reward"])
    log = {
        "reward": given["reward"], "action": given["action"], "position": given["position"],
        "pscore": given["pscore"],
        "action_dist": np.broadcast_to(given["target"], (rows, *given["target"].shape)),
        "estimated_rewards_by_reg_model": given["predicted"][given["fold"]],
    }  # fmt: skip
    return {
        name: float(estimator().estimate_policy_value(**log))
        for name, estimator in ESTIMATORS.items()
    }


def main() -> None:
    task, *rest = sys.argv[1:]
    found = {"prior": prior, "estimate": estimate}[task](*rest)
    print(json.dumps({**found, "version": version("obp")}))


if __name__ == "__main__":
    main()
