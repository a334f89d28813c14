"""Feature views as data: what is counted, for whom, over which windows.

Every column of the count, feature and sample tables that comes from behaviour or from attributes is
derived from the entries below, and so is ``CATALOG.md``. Adding a feature is one entry, or one word
in an entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "ATTRIBUTES",
    "BOTS",
    "CONTEXT",
    "DERIVED_KEYS",
    "MAX_WINDOW_HOURS",
    "TILE_MINUTES",
    "VALUE_ACTIONS",
    "VIEWS",
    "AttributeView",
    "BotRule",
    "DerivedKey",
    "FeatureView",
    "Rate",
    "Trend",
    "dense_columns",
    "sparse_columns",
    "window_name",
]

TILE_MINUTES: Final = 30
"""What is counted is kept by the half-hour of its arrival; windows are whole numbers of them."""

_HOUR: Final = 60
_DAY: Final = 24 * _HOUR

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


@dataclass(frozen=True)
class Trend:
    """How a short window's count compares with its share of a long one, smoothed towards 1.

    (short + weight) / (long * short_minutes / long_minutes + weight): above 1 where an action has
    become more frequent than it was.
    """

    action: str
    short: int
    long: int
    weight: float = 5.0


@dataclass(frozen=True)
class DerivedKey:
    """A key that events do not carry: an entity's column or attribute, as known in their hour.

    Attributes:
        lookups: (table, key, column) in order of preference; the first that knows it answers. A
            column ``categorical.<name>`` is an entry of the entity's map.
    """

    name: str
    lookups: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class BotRule:
    """Whose events of an hour (of arrival) are left out of every count.

    Attributes:
        max_events: more events than a person makes in an hour.
        min_impressions, max_click_rate: whoever was shown so much and clicked on more than that
            share of it.
    """

    max_events: int
    min_impressions: int
    max_click_rate: float


CTR: Final = Rate("ctr", "click", "impression", prior=0.1, weight=10.0)
LONG_VIEW_RATE: Final = Rate("long_view_rate", "long_view", "impression", prior=0.05, weight=10.0)
CVR: Final = Rate("cvr", "order", "click", prior=0.02, weight=20.0)
MEAN_STAY: Final = Rate("mean_stay", "stay_total", "impression", prior=3.0, weight=5.0)
RATES: Final = (CTR, LONG_VIEW_RATE, CVR, MEAN_STAY)

WINDOWS: Final = (30, _HOUR, _DAY, 3 * _DAY, 7 * _DAY, 15 * _DAY)
CLICK_TRENDS: Final = (Trend("click", _HOUR, _DAY), Trend("click", _DAY, 7 * _DAY))


@dataclass(frozen=True)
class FeatureView:
    """Counts per key and window.

    Attributes:
        name: prefix of its tables and columns.
        keys: one or two entity columns, joined as columns and never glued into one string.
        actions: what is counted.
        rates: ratios derived on reading, per window.
        amounts: valued actions whose total is a feature itself, in units of the value.
        trends: short windows against long ones, derived on reading.
        recency: actions whose last time is kept, as a timestamp; the age is derived on reading.
        windows: in minutes, by arrival: [as_of - window, as_of).
        owner: the team that answers for it.
        ttl_hours: a row that was published longer ago is not used; the defaults are.
    """

    name: str
    keys: tuple[str, ...]
    description: str
    actions: tuple[str, ...] = ("impression", "click", "long_view", "stay", "order", "follow")
    rates: tuple[Rate, ...] = RATES
    amounts: tuple[str, ...] = ()
    trends: tuple[Trend, ...] = ()
    recency: tuple[str, ...] = ("impression", "click")
    windows: tuple[int, ...] = WINDOWS
    owner: str = "ranking"
    ttl_hours: int = 48

    @property
    def counts_table(self) -> str:
        return f"counts_{self.name}"

    @property
    def day_counts_table(self) -> str:
        return f"counts_{self.name}_day"

    @property
    def features_table(self) -> str:
        return f"features_{self.name}"

    @property
    def span_hours(self) -> int:
        """How far back it looks: its longest window, in whole hours."""
        return -(-max(self.windows) // _HOUR)

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
        """What a sample carries of this view, all float32: counts, amounts and rates by window,
        trends, ages in hours."""
        names = (
            *self.actions,
            *(f"{a}_amount" for a in self.amounts),
            *(r.name for r in self.rates),
        )
        by_window = (f"{name}_{window_name(w)}" for w in self.windows for name in names)
        trends = (
            f"{t.action}_trend_{window_name(t.short)}_{window_name(t.long)}" for t in self.trends
        )
        ages = (f"hours_since_{action}" for action in self.recency)
        return tuple(f"{self.name}_{column}" for column in (*by_window, *trends, *ages))


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


def window_name(minutes: int) -> str:
    """``30m``, ``1h``, ``24h``, ``3d``: whole days above one day are written as days."""
    if minutes % _HOUR:
        return f"{minutes}m"
    days, rest = divmod(minutes, _DAY)
    return f"{days}d" if days > 1 and not rest else f"{minutes // _HOUR}h"


BOTS: Final = BotRule(max_events=2000, min_impressions=50, max_click_rate=0.9)

DERIVED_KEYS: Final[tuple[DerivedKey, ...]] = (
    DerivedKey("category", (("items", "item_id", "category"), ("rooms", "room_id", "category"))),
    DerivedKey("host_id", (("rooms", "room_id", "host_id"),)),
    DerivedKey("shop_id", (("items", "item_id", "categorical.shop"),)),
)

_LONG: Final = (_DAY, 7 * _DAY, 15 * _DAY)
_PAIR_ACTIONS: Final = ("impression", "click", "long_view", "stay", "order")

VIEWS: Final[tuple[FeatureView, ...]] = (
    FeatureView(
        "user", ("user_id",), "What a user was shown and did.",
        amounts=("order",), trends=CLICK_TRENDS,
    ),
    FeatureView(
        "item", ("item_id",), "How a product or video did with everybody.",
        amounts=("order",), trends=CLICK_TRENDS, recency=("impression", "click", "order"),
    ),
    FeatureView(
        "room", ("room_id",), "How a live room, or the items of a host, did with everybody.",
        amounts=("order",), trends=CLICK_TRENDS,
    ),
    FeatureView(
        "host", ("host_id",), "How the rooms of a host did with everybody.",
        amounts=("order",), windows=_LONG,
    ),
    FeatureView(
        "category", ("category",), "How a category did with everybody.",
        trends=CLICK_TRENDS, windows=(_HOUR, _DAY, 3 * _DAY, 7 * _DAY),
    ),
    FeatureView(
        "shop", ("shop_id",), "How the products of a shop did with everybody.",
        amounts=("order",), windows=_LONG,
    ),
    FeatureView(
        "scene", ("scene",), "How a page or feed does with everybody.",
        windows=(_HOUR, _DAY), recency=(),
    ),
    FeatureView(
        "user_category", ("user_id", "category"), "A user's taste for a category.",
        windows=(_HOUR, _DAY, 3 * _DAY, 7 * _DAY, 15 * _DAY),
    ),
    FeatureView(
        "user_room", ("user_id", "room_id"), "A user's loyalty to a room or host.",
        actions=(*_PAIR_ACTIONS, "follow"), windows=_LONG,
    ),
    FeatureView(
        "item_room", ("item_id", "room_id"), "How a product does in one room.",
        actions=_PAIR_ACTIONS, windows=(_HOUR, _DAY, 7 * _DAY),
    ),
    FeatureView(
        "query", ("query",), "What people do after a search for these words.",
        actions=("impression", "click", "order"), rates=(CTR, CVR), windows=(_DAY, 7 * _DAY),
    ),
)  # fmt: skip

MAX_WINDOW_HOURS: Final = max(w for view in VIEWS for w in view.windows) // _HOUR

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
