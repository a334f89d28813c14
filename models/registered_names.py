"""What MLflow knows of a registered name, on its client.

Searched for: asked for a name by `get_registered_model`, the server reads every version that there
ever was, those that were deleted included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["aliases_of", "registered"]


def registered(client: Any, name: str) -> Any | None:
    """The registered model ``name``; None where there is none."""
    found = client.search_registered_models(f"name = '{name}'", 1)
    return found[0] if found else None


def aliases_of(client: Any, name: str) -> Mapping[str, str]:
    """By alias of ``name`` the version that it points to."""
    found = registered(client, name)
    return {} if found is None else dict(found.aliases)
