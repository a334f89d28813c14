"""Feature views as data: what is counted, for whom, over which windows.

Every column of the count, feature and sample tables that comes from behaviour or from attributes is
derived from the entries below. Adding a feature is one entry, or one word in an entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ATTRIBUTES",
    "CONTEXT",
    "DAY_WINDOWS",
    "MAX_WINDOW",
    "VALUE_ACTIONS",
    "VIEWS",
    "AttributeView",
    "FeatureView",
    "Rate",
    "dense_columns",
    "sparse_columns",
    "window_name",
]

DAY_WINDOWS: Final = (1, 24, 72, 168)
"""Windows in hours: [as_of - w, as_of) by arrival."""

VALUE_ACTIONS: Final = {"stay": 1000, "order": 100}
"""Actions whose value is summed, with the factor to its exact integer unit (ms, cents)."""


@dataclass(frozen=True)
class Rate:
    """A smoothed ratio, (numerator + prior * weight) / (denominator + weight).

    ``numerator`` is an action's count, or ``<action>_total`` for its summed value; ``prior`` is the
    rate assumed before anything was seen and ``weight`` how many observations that belief is worth.
    """

    name: str
    numerator: str
    denominator: str
    prior: float
    weight: float


CTR: Final = Rate("ctr", "click", "impression", prior=0.1, weight=10.0)
LONG_VIEW_RATE: Final = Rate("long_view_rate", "long_view", "impression", prior=0.05, weight=10.0)
CVR: Final = Rate("cvr", "order", "click", prior=0.02, weight=20.0)
MEAN_STAY: Final = Rate("mean_stay", "stay_total", "impression", prior=3.0, weight=5.0)
RATES: Final = (CTR, LONG_VIEW_RATE, CVR, MEAN_STAY)


@dataclass(frozen=True)
class FeatureView:
    """Counts per key and window.

    Attributes:
        name: prefix of its tables and columns.
        keys: the entity columns, joined as columns and never glued into one string.
        actions: what is counted.
        rates: ratios derived on reading, per window.
        recency: actions whose last time is kept, as a timestamp; the age is derived on reading.
        windows: in hours.
        ttl_hours: a row older than this at the time of a request counts as absent.
    """

    name: str
    keys: tuple[str, ...]
    description: str
    actions: tuple[str, ...] = ("impression", "click", "long_view", "stay", "order", "follow")
    rates: tuple[Rate, ...] = RATES
    recency: tuple[str, ...] = ("impression", "click")
    windows: tuple[int, ...] = DAY_WINDOWS
    owner: str = "ranking"
    ttl_hours: int = 48

    @property
    def counts_table(self) -> str:
        return f"counts_{self.name}"

    @property
    def features_table(self) -> str:
        return f"features_{self.name}"

    def measures(self) -> tuple[str, ...]:
        """The integer quantities kept per window: a count per action, a total per valued action."""
        totals = tuple(f"{a}_total" for a in self.actions if a in VALUE_ACTIONS)
        return (*self.actions, *totals)

    def count_columns(self) -> tuple[str, ...]:
        """Stored integer columns, ``<measure>_<window>``."""
        return tuple(f"{m}_{window_name(w)}" for w in self.windows for m in self.measures())

    def recency_columns(self) -> tuple[str, ...]:
        """Stored timestamp columns, ``last_<action>_at``."""
        return tuple(f"last_{action}_at" for action in self.recency)

    def sample_columns(self) -> tuple[str, ...]:
        """What a sample carries of this view: counts, rates, ages in hours; all float32."""
        counts = (f"{a}_{window_name(w)}" for w in self.windows for a in self.actions)
        rates = (f"{r.name}_{window_name(w)}" for w in self.windows for r in self.rates)
        ages = (f"hours_since_{action}" for action in self.recency)
        return tuple(f"{self.name}_{column}" for column in (*counts, *rates, *ages))


@dataclass(frozen=True)
class AttributeView:
    """Static attributes of an entity, by their name in its ``numeric`` / ``categorical`` map."""

    entity: str
    table: str
    key: str
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    def dense(self) -> tuple[str, ...]:
        return tuple(f"{self.entity}_{name}" for name in self.numeric)

    def sparse(self) -> tuple[str, ...]:
        return tuple(f"{self.entity}_{name}" for name in self.categorical)


MAX_WINDOW: Final = max(DAY_WINDOWS)


def window_name(hours: int) -> str:
    """``1h``, ``24h``, ``3d``, ``7d``: whole days above one day are written as days."""
    return f"{hours // 24}d" if hours > 24 and hours % 24 == 0 else f"{hours}h"


VIEWS: Final[tuple[FeatureView, ...]] = (
    FeatureView("user", ("user_id",), "What a user was shown and did."),
    FeatureView("item", ("item_id",), "How a product or video did with everybody."),
    FeatureView("room", ("room_id",), "How a live room, or an item's host, did with everybody."),
    FeatureView("category", ("category",), "How a category did with everybody."),
    FeatureView("user_category", ("user_id", "category"), "A user's taste for a category."),
)

ATTRIBUTES: Final[tuple[AttributeView, ...]] = (
    AttributeView(
        "user",
        "users",
        "user_id",
        numeric=(
            "register_days", "follow_user_num", "fans_user_num", "friend_user_num",
            *(f"onehot_feat{i}" for i in range(18)),
        ),
        categorical=("activity", "age_band", "lifecycle"),
    ),
    AttributeView(
        "item",
        "items",
        "item_id",
        numeric=("duration_s", "price", "published_day"),
        categorical=("video_type", "upload_type", "music_type"),
    ),
    AttributeView("room", "rooms", "room_id", numeric=("host_level",)),
)  # fmt: skip

CONTEXT: Final = ("hour_of_day", "day_of_week")
"""Dense context of an impression, in the business time zone (0-23; Monday = 0)."""


def dense_columns() -> tuple[str, ...]:
    """Every dense feature column of ``samples``, in order."""
    attributes = tuple(c for view in ATTRIBUTES for c in view.dense())
    behaviour = tuple(c for view in VIEWS for c in view.sample_columns())
    return (*CONTEXT, *attributes, *behaviour)


def sparse_columns() -> tuple[tuple[str, int], ...]:
    """Every categorical feature column of ``samples`` with the buckets its text is hashed into."""
    attributes = tuple((c, 64) for view in ATTRIBUTES for c in view.sparse())
    return (("scene", 64), ("category", 1024), ("target_type", 8), *attributes)
