"""What MLflow runs when it loads registered node embeddings as a pyfunc: models-from-code, no
pickle.

Rows of ``node_type`` and ``node_id`` come in; each node's vector and the identifiers of its nearest
neighbours go out. Parameters: ``k`` neighbours (10), ``of_type`` of which (the node's own), and
``exact``, which compares with all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from models import load_model
from models.registry import PythonModel, set_model


class EmbeddingPyfunc(PythonModel):
    """Node embeddings behind MLflow's generic interface."""

    # MLflow would ask for a type hint to infer a signature from; this model brings its own.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load the vectors that were packed beside this file."""
        self.model: Any = load_model(Path(context.artifacts["embedding"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Per row ``vector`` and ``neighbours``, both None for a node without a vector."""
        del context
        asked = params or {}
        frame = model_input if isinstance(model_input, pa.Table) else pa.Table.from_pandas(
            model_input
        )  # fmt: skip
        near = self.model.neighbours(
            frame, asked.get("of_type") or None, int(asked.get("k", 10)), bool(asked.get("exact"))
        )
        found = [None if row is None else list(row.ids) for row in near]
        columns = {"vector": self.model.lookup(frame), "neighbours": pa.array(found)}
        return pa.table(columns).to_pandas()


set_model(EmbeddingPyfunc())
