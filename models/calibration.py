"""Probabilities of a model that was fitted on a share of the negatives, and back.

Keeping each negative with probability w and every positive multiplies the odds of a positive by
1 / w. Undone here after He et al., Practical Lessons from Predicting Clicks on Ads at Facebook,
ADKDD 2014, section 6.3: q = p / (p + (1 - p) / w). The order of rows does not change; whoever reads
the numbers as probabilities, or adds those of several tasks, needs the correction, which the trees
make by themselves (:mod:`models.down_sampling`). How well probabilities fit is told by
:func:`models.metrics.expected_calibration_error` and :func:`models.metrics.reliability_curve`, on
rows that trained nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["as_down_sampled", "undo_down_sampling"]

Floats = npt.NDArray[np.float64]


def undo_down_sampling(probabilities: npt.ArrayLike, kept: float) -> Floats:
    """Probabilities among all rows, from those among the rows kept; any shape, kept as it is.

    >>> undo_down_sampling([0.0, 0.5, 1.0], kept=0.25).tolist()
    [0.0, 0.2, 1.0]

    Args:
        probabilities: of a positive, as a model says that was fitted after down-sampling.
        kept: share of the negatives that were kept, in (0, 1]; positives were all kept.

    Raises:
        ValueError: for a share outside (0, 1], or probabilities that are NaN or outside [0, 1].
    """
    p, w = _probabilities(probabilities), _share(kept)
    q: Floats = p / (p + (1 - p) / w)
    return q


def as_down_sampled(probabilities: npt.ArrayLike, kept: float) -> Floats:
    """The inverse of :func:`undo_down_sampling`: p = q / (q + (1 - q) w), with the same errors.

    >>> as_down_sampled([0.0, 0.2, 1.0], kept=0.25).tolist()
    [0.0, 0.5, 1.0]
    """
    q, w = _probabilities(probabilities), _share(kept)
    p: Floats = q / (q + (1 - q) * w)
    return p


def _share(kept: float) -> float:
    if not 0 < kept <= 1:
        raise ValueError(
            f"the share of negatives kept is {kept}; it must lie in (0, 1], and is 1 without "
            "down-sampling"
        )
    return float(kept)


def _probabilities(values: npt.ArrayLike) -> Floats:
    p = np.asarray(values, dtype=np.float64)
    wrong = p[~((p >= 0) & (p <= 1))]
    if wrong.size:
        raise ValueError(
            f"{wrong.size} of {p.size} probabilities are NaN or outside [0, 1], such as "
            f"{wrong.flat[0]}; raw scores must go through the sigmoid first"
        )
    return p
