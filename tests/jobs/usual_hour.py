"""A usual hour of a shop, and the same hour with something odd about it."""

from __future__ import annotations

from typing import Any

from tests.jobs.conftest import HOUR, event

SHOWN = 400
ACTIONS = {"click": 80, "long_view": 60, "stay": 80, "cart": 40, "favor": 40, "order": 40,
           "follow": 40, "like": 40, "comment": 40}  # fmt: skip

Row = dict[str, Any]


def hour_of_events(
    hour: str = HOUR, shown: int = SHOWN, changed: int = 0, to: Row | None = None, **counts: int
) -> list[Row]:
    """A usual hour: ``counts`` events of actions, the first ``changed`` impressions set ``to``."""
    rows = [
        event(n, hour, **{
            "scene": "search" if n % 10 < 3 else "feed",
            "target_type": "item" if n % 4 else "room",
            "propensity": 0.5,
            **((to or {}) if n < changed else {}),
        })
        for n in range(shown)
    ]  # fmt: skip
    for action, usual in ACTIONS.items():
        count = counts.get(action, round(usual * shown / SHOWN))
        rows += [
            event(n, hour, event_id=f"{hour}-{action}-{n}", action=action, value=30.0)
            for n in range(count)
        ]
    return rows
