"""The feature views without windows above 24 hours, to see what long windows cost.

Import it first: everything else derives from the views when it is imported. It is also the parent
of Spark's Python workers, which must see the same views.
"""

from __future__ import annotations

from dataclasses import replace

from feature_store import views

LONGEST = 24 * 60

views.VIEWS = tuple(  # type: ignore[misc]
    replace(
        view,
        windows=tuple(w for w in view.windows if w <= LONGEST),
        trends=tuple(t for t in view.trends if t.long <= LONGEST),
    )
    for view in views.VIEWS
)

if __name__ == "__main__":
    from pyspark.daemon import manager

    import feature_store.spark_daemon  # noqa: F401

    manager()
