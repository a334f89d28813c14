"""A job of the product as a process, with a feature service of 60 columns beside the declared ones.

    python benchmarks/gbdt_job.py train_gbdt --hour 2026-11-11T05 --config conf.yaml

A team declares such a service in feature_store/services.py; a benchmark has no place there.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace

from feature_store import services

NAME = "sixty"
SIXTY = replace(
    services.SERVICES["ranking"],
    name=NAME,
    description="The last 24 hours of user, item, scene and taste; the item and the request.",
    views=("user", "item", "scene", "user_category"),
    attributes=("item",),
    windows=("24h",),
)

services.SERVICES = {**services.SERVICES, NAME: SIXTY}  # type: ignore[misc]

if __name__ == "__main__":
    job = sys.argv.pop(1)
    sys.exit(importlib.import_module(f"jobs.{job}").main())
