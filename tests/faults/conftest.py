"""The stack of tests/e2e, shared where both run."""

from __future__ import annotations

from tests.e2e.conftest import run

__all__ = ["run"]
