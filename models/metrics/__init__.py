"""Ranking and probability metrics: pure functions on numpy arrays; larger is better, but for loss.

=============  ===================================================================================
groups         what is ranked together: :class:`Groups`, :class:`GroupValues`, :func:`group_codes`
ranking        one value a group: NDCG, MAP, MRR, recall, precision, AUC
probabilities  one value for all rows: AUC, log loss, normalised entropy, calibration
comparison     two rankers on the same groups: intervals, p-values, what could be detected
report         :func:`evaluate_ranking`, all of it for one ranker
=============  ===================================================================================

No argument is changed.
"""

from __future__ import annotations

from models.metrics.comparison import (
    Interval,
    benjamini_hochberg,
    holm,
    minimum_detectable_difference,
    paired_bootstrap,
    paired_p_value,
)
from models.metrics.groups import Groups, GroupValues, group_codes, grouped, groups_of_sizes
from models.metrics.probabilities import (
    CalibrationCurve,
    auc,
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
from models.metrics.report import evaluate_ranking

__all__ = [
    "CalibrationCurve",
    "GroupValues",
    "Groups",
    "Interval",
    "auc",
    "benjamini_hochberg",
    "evaluate_ranking",
    "expected_calibration_error",
    "exponential_gains",
    "gauc",
    "group_auc",
    "group_codes",
    "grouped",
    "groups_of_sizes",
    "holm",
    "log_loss",
    "map_at_ks",
    "minimum_detectable_difference",
    "mrr_at_ks",
    "ndcg_at_k",
    "ndcg_at_ks",
    "normalised_entropy",
    "paired_bootstrap",
    "paired_p_value",
    "precision_at_ks",
    "recall_at_ks",
    "reliability_curve",
]
