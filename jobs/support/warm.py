"""Warm starts: what a fit goes on from, which is never a model that has seen the fit's own hour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jobs.support.plans import Plan
from jobs.support.summary import progress
from models.registry import Registry, Version

__all__ = ["warm_start", "warmed_from"]


def warm_start(
    job: str, registry: Registry, chosen: Plan, fresh: Callable[[Plan], Any], why: str
) -> tuple[Plan, Any | None]:
    """The plan as it starts, and the champion's model that it starts from, if any.

    A champion that does not fit is said in the log, and the plan is then one from scratch: another
    run key, under which the version is found again (see ``find_candidate``).

    Args:
        fresh: the unfitted model of a plan, which says whether it can go on from another.
        why: there is no champion to start from.
    """
    if chosen.warm is None:
        progress(job, f"from scratch: {why}")
        return chosen, None
    version = registry.get(chosen.name, int(chosen.warm))
    refusal = _seen(chosen, version)
    model = None
    if refusal is None:
        model = registry.load(chosen.name, version.version).model
        refusal = fresh(chosen).warm_refusal(model)
    if refusal is not None:
        progress(job, f"from scratch: the champion, version {chosen.warm}, does not fit: {refusal}")
        return replace(chosen, warm=None), None
    progress(job, f"from the champion, version {chosen.warm}")
    return chosen, model


def _seen(chosen: Plan, champion: Version) -> str | None:
    seen = champion.tags["data_hour"]
    if seen >= chosen.hour:
        return f"it has seen {seen}, and this model may know nothing from {chosen.hour} on"
    return None


def warmed_from(chosen: Plan) -> dict[str, Any]:
    """What the hand-off says of the start."""
    champion = {"name": chosen.name, "version": int(chosen.warm)} if chosen.warm else None
    return {"warmed_from": champion}
