"""How the importance of features moves from one version to the next.

The importance of a column is its share of the total gain of a booster's splits; the distance of two
boosters is the total variation distance of their shares: half the sum of the absolute differences,
0 for the same shares and 1 where no column has a share in both (Levin and Peres, Markov Chains and
Mixing Times, 2nd edition, proposition 4.2).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from models.base import ModelError

__all__ = [
    "IMPORTANCES_FILE",
    "Shares",
    "gain_shares",
    "shares_from_text",
    "shares_text",
    "total_variation",
]

IMPORTANCES_FILE: Final = "feature_importance.json"
"""What keeps a version's shares: the numbers behind the figure of that name, beside it."""

_SCHEMA_VERSION: Final = 1

Shares = Mapping[str, Mapping[str, float]]
"""By task the columns' shares of the total gain."""


def gain_shares(importances: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Shares of the total gain by task and column; a task whose trees have no split is left out."""
    totals = {task: sum(gains.values()) for task, gains in importances.items()}
    return {
        task: {name: gain / totals[task] for name, gain in gains.items()}
        for task, gains in importances.items()
        if totals[task] > 0
    }


def total_variation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Half the sum of the absolute differences of two sets of shares; a column that one of them
    lacks has no share there.

    >>> total_variation({"a": 0.75, "b": 0.25}, {"a": 0.5, "c": 0.5})
    0.5
    """
    names = one.keys() | other.keys()
    return sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in sorted(names)) / 2


def shares_text(shares: Shares) -> str:
    """``shares`` as JSON."""
    body = {"schema_version": _SCHEMA_VERSION, "gain_shares": shares}
    return json.dumps(body, indent=2, sort_keys=True, allow_nan=False) + "\n"


def shares_from_text(text: str) -> Shares:
    """The inverse of :func:`shares_text`.

    Raises:
        ModelError: for a text that holds something else.
    """
    try:
        body = json.loads(text)
        if body["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(f"schema version {body['schema_version']!r}, not {_SCHEMA_VERSION}")
        return {
            str(task): {str(name): float(share) for name, share in shares.items()}
            for task, shares in body["gain_shares"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{IMPORTANCES_FILE} holds no gain shares ({error!r})") from error
