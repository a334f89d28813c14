"""Ranking, probability and exposure metrics: pure functions on numpy arrays. Larger is better, but
for loss; what an exposure should be is for who reads it to say.

=============  ===================================================================================
groups         what is ranked together: :class:`Groups`, :class:`GroupValues`, :func:`group_codes`
ranking        one value a group: NDCG, MAP, MRR, recall, precision, AUC
probabilities  one value for all rows: AUC, log loss, normalised entropy, calibration
exposure       whom a ranker shows: Gini, tail share, coverage, lift; :class:`ExposureSums`
comparison     two rankers on the same groups: intervals, p-values, what could be detected
report         :func:`evaluate_ranking`, all of it for one ranker, and of parts together
=============  ===================================================================================

No argument is changed.
"""

from __future__ import annotations

from models.metrics.comparison import (
    Interval,
    NormalInterval,
    benjamini_hochberg,
    holm,
    interval_of_sums,
    minimum_detectable_difference,
    paired_bootstrap,
    paired_p_value,
)
from models.metrics.exposure import (
    ExposureSums,
    coverage,
    exposures,
    first_places,
    gini,
    logged_exposures,
    popularity_lift,
    tail,
    tail_share,
)
from models.metrics.groups import Groups, GroupValues, group_codes, grouped, groups_of_sizes
from models.metrics.probabilities import (
    CalibrationCurve,
    auc,
    calibration_sums,
    calibration_sums_curve,
    expected_calibration_error,
    log_loss,
    normalised_entropy,
    reliability_curve,
)
from models.metrics.ranking import (
    exponential_gains,
    gauc,
    group_auc,
    map_at_ks,
    mrr_at_ks,
    ndcg_at_k,
    ndcg_at_ks,
    precision_at_ks,
    recall_at_ks,
)
from models.metrics.report import evaluate_graded, evaluate_ranking, pooled_report

__all__ = [
    "CalibrationCurve",
    "ExposureSums",
    "GroupValues",
    "Groups",
    "Interval",
    "NormalInterval",
    "auc",
    "benjamini_hochberg",
    "calibration_sums",
    "calibration_sums_curve",
    "coverage",
    "evaluate_graded",
    "evaluate_ranking",
    "expected_calibration_error",
    "exponential_gains",
    "exposures",
    "first_places",
    "gauc",
    "gini",
    "group_auc",
    "group_codes",
    "grouped",
    "groups_of_sizes",
    "holm",
    "interval_of_sums",
    "log_loss",
    "logged_exposures",
    "map_at_ks",
    "minimum_detectable_difference",
    "mrr_at_ks",
    "ndcg_at_k",
    "ndcg_at_ks",
    "normalised_entropy",
    "paired_bootstrap",
    "paired_p_value",
    "pooled_report",
    "popularity_lift",
    "precision_at_ks",
    "recall_at_ks",
    "reliability_curve",
    "tail",
    "tail_share",
]
