"""Off-policy estimators against enumeration, plain loops and worlds whose truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.off_policy_coverage import (
    ACTIONS,
    CASES,
    CONTEXTS,
    PLACES,
    bandit_world,
    coverage,
    drawn,
    estimates,
    place_chances,
    slate_chances,
    summed,
)
from models.metrics import paired_bootstrap
from models.off_policy import (
    Estimate,
    OverlapRule,
    PropensityError,
    WeightedLog,
    doubly_robust,
    effective_size,
    ips,
    item_position_ips,
    snips,
    weigh,
)

LOGGED, TARGET, RATE = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5]), [0.1, 0.5, 0.8]


def _log(rows: int = 400, seed: int = 1) -> tuple[np.ndarray, ...]:
    """Rewards, logged, target, requests of some rows, and two columns of predictions."""
    rng = np.random.default_rng(seed)
    logged = rng.uniform(0.05, 1.0, rows)
    target = rng.uniform(0.0, 1.0, rows) * (rng.random(rows) < 0.8)
    rewards = rng.normal(1.0, 2.0, rows)
    return rewards, logged, target, rng.integers(0, 90, rows), rng.random(rows), rng.random(rows)


def test_ips_and_doubly_robust_are_unbiased_by_enumeration() -> None:
    """All logs of two rows in a world of three actions, weighted by their chances."""
    truth = float(TARGET @ RATE)
    q = np.array([0.3, 0.1, 0.9])  # predictions may be wrong
    mean = {"ips": 0.0, "doubly_robust": 0.0}
    outcomes = list(itertools.product(range(3), (0, 1)))
    for log in itertools.product(outcomes, repeat=2):
        action, click = np.array(log).T
        chance = np.prod([LOGGED[a] * (RATE[a] if c else 1 - RATE[a]) for a, c in log])
        rows = weigh(click, LOGGED[action], TARGET[action])
        robust = doubly_robust(rows, q[action], np.full(2, TARGET @ q), 0, resamples=1)
        mean["ips"] += chance * ips(rows, 0, resamples=1).value
        mean["doubly_robust"] += chance * robust.value
    assert mean == pytest.approx({"ips": truth, "doubly_robust": truth}, abs=1e-12)


def test_item_position_ips_is_unbiased_for_slates_by_enumeration() -> None:
    """One request whose slate is an order of three actions or of two; clicks by item and place."""
    slates = [*itertools.permutations(range(3)), *itertools.permutations(range(3), 2)]
    rng = np.random.default_rng(4)
    logged, target = rng.dirichlet(np.ones(len(slates)), 2)
    rates = rng.random((3, 3))
    at = np.zeros((2, 3, 3))
    for policy, chances in enumerate((logged, target)):
        for slate, chance in zip(slates, chances, strict=True):
            for place, action in enumerate(slate):
                at[policy, action, place] += chance
    found = 0.0
    for slate, chance in zip(slates, logged, strict=True):
        rows = (list(slate), list(range(len(slate))))
        # the estimate is linear in the clicks, so their expectation may stand for them
        log = weigh(rates[rows], at[0][rows], at[1][rows], ["request"] * len(slate))
        found += chance * item_position_ips(log, 0, resamples=1).value
    assert found == pytest.approx(float((at[1] * rates).sum()), abs=1e-12)


@pytest.mark.parametrize("clip", [None, 1.5])
def test_values_equal_a_plain_loop(clip: float | None) -> None:
    rewards, logged, target, requests, q, expected = _log()
    log = weigh(rewards, pa.array(logged), pa.chunked_array([target]), requests, clip)
    weights = [min(t / p, clip or np.inf) for t, p in zip(target, logged, strict=True)]
    weighted = sum(w * r for w, r in zip(weights, rewards, strict=True))
    robust = sum(m + w * (r - p) for m, w, r, p in zip(expected, weights, rewards, q, strict=True))
    plain = {
        "ips": weighted / len(rewards),
        "snips": weighted / sum(weights),
        "doubly_robust": robust / len(rewards),
        "item_position_ips": weighted / len(set(requests.tolist())),
    }
    found = (ips(log, 3), snips(log, 3), doubly_robust(log, q, expected, 3),
             item_position_ips(log, 3))  # fmt: skip
    assert {e.estimator: e.value for e in found} == pytest.approx(plain, abs=1e-12)
    assert log.overlap.clipped_share == np.mean(target / logged > (clip or np.inf))


def test_interval_without_requests_is_the_bootstrap_of_the_terms() -> None:
    rewards, logged, target, _, q, expected = _log()
    log = weigh(rewards, logged, target)
    terms = rewards * target / logged
    low, high = paired_bootstrap(terms, 7)[1:]
    assert ips(log, 7)[2:4] == pytest.approx((low, high), abs=1e-12)
    terms = expected + target / logged * (rewards - q)
    low, high = paired_bootstrap(terms, 7)[1:]
    assert doubly_robust(log, q, expected, 7)[2:4] == pytest.approx((low, high), abs=1e-12)
    assert ips(log, 7, level=0.5).low > ips(log, 7).low


def test_interval_of_snips_is_that_of_the_resampled_ratio() -> None:
    rewards, logged, target, *_ = _log(4000)
    log = weigh(rewards, logged, target)
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 4000, (2000, 4000))
    ratios = (log.weights * rewards)[rows].sum(axis=1) / log.weights[rows].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    found = snips(log, 5, resamples=2000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_rows_of_a_request_are_resampled_together() -> None:
    """Every row four times over tells no more than once, and the interval must say so."""
    rewards, logged, target, _, q, expected = _log()
    once = weigh(rewards, logged, target)
    rows = np.repeat(np.arange(400), 4)
    again = weigh(rewards[rows], logged[rows], target[rows], [f"r{row}" for row in rows])
    for found, wanted in (
        (ips(again, 3), ips(once, 3)),
        (snips(again, 3), snips(once, 3)),
        (doubly_robust(again, q[rows], expected[rows], 3), doubly_robust(once, q, expected, 3)),
    ):
        assert found[1:4] == pytest.approx(wanted[1:4], abs=1e-9)


def test_snips_of_a_constant_reward_is_that_constant() -> None:
    _, logged, target, *_ = _log()
    log = weigh(np.full(400, 3.0), logged, target)
    assert snips(log, 1)[1:4] == pytest.approx((3.0, 3.0, 3.0), abs=1e-9)
    assert abs(ips(log, 1).value - 3.0) > 0.01


def test_effective_size() -> None:
    assert effective_size(np.full(7, 0.3)) == pytest.approx(7)
    assert effective_size([1e-300, 0, 0]) == pytest.approx(1)
    assert effective_size([1.0, 3.0]) == pytest.approx(16 / 10)
    assert effective_size([]) == effective_size([0.0, 0.0]) == 0.0


def _even(rows: int, rewards: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two policies that agree on all."""
    return np.arange(rows) < rewards, np.full(rows, 0.25), np.full(rows, 0.25)


def test_good_overlap_is_silent() -> None:
    overlap = weigh(*_even(2000)).overlap
    assert (overlap.level, overlap.warning) == ("good", "")
    assert overlap[2:] == pytest.approx((2000, 2000, 1.0, 1 / 2000, 200, 1.0, 0.0, 0.0))


@pytest.mark.parametrize(("rewards", "level"), [(29, "poor"), (9, "unusable")])
def test_few_rewards_are_told(rewards: int, level: str) -> None:
    overlap = weigh(*_even(2000, rewards)).overlap
    assert overlap.level == level
    assert f"only {rewards}.0 effective rewarded rows, and 30 are wanted" in overlap.warning


@pytest.mark.parametrize(("rows", "level"), [(999, "poor"), (99, "unusable")])
def test_few_rows_are_told(rows: int, level: str) -> None:
    overlap = weigh(*_even(rows)).overlap
    assert overlap.level == level
    assert f"only {rows} effective rows, and 1,000 are wanted" in overlap.warning


def test_one_heavy_row_is_told() -> None:
    rewards, logged, target = _even(5000)
    logged[3] = 0.25 / 5000
    overlap = weigh(rewards, logged, target).overlap
    assert overlap.level == "unusable"
    assert "one row carries 50.0% of the weight, and 1.0% is the most wanted" in overlap.warning
    assert "do not decide by this estimate" in overlap.warning
    clipped = weigh(rewards, logged, target, clip=10.0).overlap
    assert (clipped.level, clipped.clipped_share) == ("good", 1 / 5000)
    strict = weigh(rewards, logged, target, clip=10.0, rule=OverlapRule(effective_rows=(1e6, 1)))
    assert strict.overlap.level == "poor"


def test_what_the_log_cannot_show_is_told_by_the_mean_weight() -> None:
    rng = np.random.default_rng(8)
    action = rng.choice(2, 5000)
    target = np.array([0.3, 0.5])[action]  # and .2 on an action that is never shown
    overlap = weigh(rng.random(5000), np.full(5000, 0.5), target).overlap
    assert overlap.level == "poor"
    assert overlap.mean_weight == pytest.approx(0.8, abs=0.02)
    assert "the target policy shows what the log cannot" in overlap.warning


def test_rows_that_the_target_never_shows_are_counted() -> None:
    rewards, logged, target = _even(4000)
    target = np.where(np.arange(4000) % 4 == 0, 0.0, 1 / 3)
    overlap = weigh(rewards, logged, target).overlap
    assert (overlap.zero_share, overlap.effective_share) == pytest.approx((0.25, 0.75))
    assert overlap.level == "good"


@pytest.mark.parametrize(
    ("logged", "target", "rewards", "words"),
    [
        ([0.5, 0.0, 0.0], [0.5] * 3, [1, 0, 1], r"logged is 0\.0 in 2 of 3 rows, first in row 1"),
        ([0.5, 1.5, 1.0], [0.5] * 3, [1, 0, 1], r"logged is 1\.5 in 1 of 3 rows.*as served"),
        ([0.5] * 3, [0.5, -0.1, 0], [1, 0, 1], r"target is -0\.1 in 1 of 3 rows.*in \[0, 1\]"),
        ([0.5] * 3, [0.5, 1.1, 0], [1, 0, 1], r"target is 1\.1 in 1 of 3 rows"),
        (pa.array([0.5, None, 0.5]), [0.5] * 3, [1, 0, 1],
         r"logged is null or not finite in 1 of 3 rows, first in row 1.*log its propensities"),
        ([0.5] * 3, [0.5] * 3, [1, np.nan, 1], r"rewards is null or not finite in 1 of 3 rows"),
        ([0.5] * 3, [0.5] * 3, [1, np.inf, 1], r"rewards is null or not finite in 1 of 3 rows"),
        ([0.5] * 2, [0.5] * 3, [1, 0, 1], r"have \[3, 2, 3, 3\] rows"),
        ([], [], [], r"at least one row"),
        ([[0.5]], [0.5], [1], r"logged has shape \(1, 1\)"),
        ([0.5] * 3, [0.0] * 3, [1, 0, 1], r"add up to 0\.0: the log says nothing"),
        ([1e-320] * 3, [0.5] * 3, [1, 0, 1], r"add up to inf"),
    ],
)  # fmt: skip
def test_what_cannot_be_weighed_is_refused(
    logged: object, target: object, rewards: object, words: str
) -> None:
    with pytest.raises(PropensityError, match=words):
        weigh(rewards, logged, target)


def test_rounding_above_one_is_no_refusal() -> None:
    rows = np.full(3, 1.0 + 5e-7)
    assert weigh([1.0, 0.0, 1.0], rows, rows).weights.tolist() == [1.0, 1.0, 1.0]


def test_bad_clips_requests_and_predictions_are_refused() -> None:
    rewards, logged, target = _even(3)
    for clip in (0.0, -1.0, float("nan")):
        with pytest.raises(PropensityError, match="largest weight allowed, above 0"):
            weigh(rewards, logged, target, clip=clip)
    with pytest.raises(PropensityError, match="requests is null in 1 of 3 rows"):
        weigh(rewards, logged, target, pa.array(["a", None, "b"]))
    log = weigh(rewards, logged, target)
    with pytest.raises(PropensityError, match="have 2 and 3 rows, the log has 3"):
        doubly_robust(log, [0.1, 0.2], [0.1, 0.2, 0.3], 0)
    with pytest.raises(PropensityError, match="predicted is null or not finite"):
        doubly_robust(log, [0.1, None, 0.2], [0.1, 0.2, 0.3], 0)


def test_doubly_robust_stands_with_either_half() -> None:
    """Right predictions with wrong propensities, and the other way round."""
    rng = np.random.default_rng(6)
    action = rng.choice(3, 20_000, p=LOGGED)
    clicks, rates = rng.random(len(action)) < np.array(RATE)[action], np.array(RATE)
    truth = float(TARGET @ rates)

    def found(logged: np.ndarray, q: np.ndarray) -> Estimate:
        log: WeightedLog = weigh(clicks, logged[action], TARGET[action])
        return doubly_robust(log, q[action], np.full(len(action), TARGET @ q), 1, resamples=300)

    wrong = np.full(3, 1 / 3)
    for estimate in (found(wrong, rates), found(LOGGED, wrong)):
        assert estimate.low < truth < estimate.high
    assert not found(wrong, wrong).low < truth < found(wrong, wrong).high


def test_worlds_are_what_they_say() -> None:
    """Each place shows one action, the first by the softmax, and logs follow the chances."""
    preferences = np.random.default_rng(3).normal(0, 30, (CONTEXTS, ACTIONS))
    chances = place_chances(slate_chances(preferences))
    assert chances.sum(axis=1) == pytest.approx(np.ones((CONTEXTS, PLACES)), abs=1e-9)
    softmax = np.exp(preferences) / np.exp(preferences).sum(axis=1, keepdims=True)
    assert chances[:, :, 0] == pytest.approx(softmax, abs=1e-12)
    world = bandit_world(7, 2.0)
    log = drawn(world, 40_000, np.random.default_rng(1))
    mine = (log.context == 2) & (log.place == 1)
    shares = np.bincount(log.action[mine], minlength=ACTIONS) / mine.sum()
    assert shares == pytest.approx(world.logged[2, :, 1], abs=0.02)
    here = mine & (log.action == np.argmax(shares))
    assert log.click[here].mean() == pytest.approx(
        world.rates[2, np.argmax(shares), 1], abs=5 / np.sqrt(here.sum()) / 2
    )


def test_intervals_hold_the_truth_in_small_worlds() -> None:
    """Fewer than 34 hits of 40 have a chance of .3 % at 95 %."""
    for found in coverage("near", 40, first_seed=5000, resamples=300).values():
        assert 34 <= found.held <= 40
        assert abs(found.bias) < 4 * found.error / np.sqrt(40)
        assert found.levels["good"] == 40


def test_intervals_on_either_side_of_the_truth_are_misses() -> None:
    overlap = weigh(*_even(2000)).overlap
    found = [Estimate("ips", v, v - 0.5, v + 0.5, overlap) for v in (1.0, 2.0, 2.25, 3.0)]
    total = summed([(estimate, 2.0) for estimate in found])
    assert (total.held, total.worlds) == (2, 4)
    assert total.bias == pytest.approx((-0.5 + 0 + 0.125 + 0.5) / 4)
    assert total.width == pytest.approx(0.5)


def test_thin_worlds_are_warned_of() -> None:
    world = bandit_world(1, CASES["thin"][1])
    log = drawn(world, CASES["thin"][0], np.random.default_rng(1))
    for estimate, _ in estimates(world, log, 1).values():
        assert estimate.overlap.level != "good"
        assert estimate.overlap.warning
