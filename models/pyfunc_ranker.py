"""What MLflow runs when it loads a registered ranker as a pyfunc: models-from-code, no pickle.

Rows come in as a frame with the columns of the FeatureSpec; each task's probability and the
ranking score go out as a frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from models import load_ranker
from models.base import FeatureSpec
from models.registry import PythonModel, set_model


def as_arrow(frame: Any, spec: FeatureSpec) -> pa.Table:
    """The frame as Arrow; a column without any value gets the type that ``spec`` wants."""
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame)
    vectors = {column.name for column in spec.pretrained}
    numbers = {*spec.dense, *vectors, *(c.name for c in spec.sequences if c.kind == "log")}
    for i, item in enumerate(table.schema):
        kind = pa.float64() if item.name in numbers else pa.string()
        if item.name in vectors and pa.types.is_null(item.type):
            kind = pa.list_(kind)
        if pa.types.is_list(item.type) and pa.types.is_null(item.type.value_type):
            table = table.set_column(i, item.name, table.column(i).cast(pa.list_(kind)))
        elif pa.types.is_null(item.type):
            table = table.set_column(i, item.name, table.column(i).cast(kind))
    return table


class RankerPyfunc(PythonModel):
    """A ranker behind MLflow's generic interface."""

    # MLflow would ask for a type hint to infer a signature from; this model brings its own.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load the ranker that was packed beside this file."""
        self.ranker = load_ranker(Path(context.artifacts["ranker"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Per row one column a task and ``score``."""
        del context, params
        table = as_arrow(model_input, self.ranker.spec)
        columns = {**self.ranker.predict(table), "score": self.ranker.score(table)}
        return pa.table(columns).to_pandas()


set_model(RankerPyfunc())
