"""docs/your-own-log.md does what it says: its files, adapter, configurations, errors and query."""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

import feature_store.sources as sources
from feature_store.ingestion import IngestRules, judge
from feature_store.schemas import ENTITY_TABLES, EVALUATIONS, SOURCE_EVENTS, optional
from feature_store.sources import SourceError, open_source
from feature_store.tables import Store
from feature_store.views import ATTRIBUTES
from jobs.support.settings import Settings, load_settings
from models.gbdt import GBDTConfig

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "your-own-log.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


EVENTS, PRODUCTS = blocks("csv")
ADAPTER, QUERY, CANONICAL = blocks("python")
PATCH = blocks("diff")[0].splitlines()
IMPORT, ENTRY = (line[1:] for line in PATCH if line.startswith("+"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The page's files where it says; relative paths in messages are the page's."""
    monkeypatch.chdir(tmp_path)
    path = Path("data/shop")
    path.mkdir(parents=True)
    (path / "events.csv").write_text(EVENTS)
    (path / "products.csv").write_text(PRODUCTS)
    return path


@pytest.fixture
def shop(folder, monkeypatch):
    """The page's adapter, registered by the page's line."""
    module = folder.absolute() / "shop.py"
    module.write_text(ADAPTER)
    spec = importlib.util.spec_from_file_location("feature_store.sources.shop", module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    monkeypatch.setitem(sys.modules, "feature_store.sources.shop", loaded)
    namespace = {}
    exec(f"{IMPORT}\nadded = {{{ENTRY}}}", namespace)  # noqa: S102
    monkeypatch.setattr(sources, "SOURCES", {**sources.SOURCES, **namespace["added"]})
    return open_source("shop", {"path": folder})


def table(source) -> pa.Table:
    return pa.Table.from_batches(source.events(*source.span()), SOURCE_EVENTS)


def reasons(events: pa.Table) -> Counter[str | None]:
    rows = events.cast(optional(SOURCE_EVENTS))
    arrived = rows.schema.get_field_index("ingested_at")
    return Counter(
        judge(
            rows.set_column(arrived, "ingested_at", rows["event_time"]), IngestRules()
        ).to_pylist()
    )


def settings(text: str, path: str, folder: Path) -> Settings:
    Path("conf").mkdir()
    Path(path).write_text(text)
    fields = ("warehouse", "catalog_uri", "tracking_uri")
    empty = dict.fromkeys(fields)
    return load_settings(argparse.Namespace(config=path, data=str(folder), **empty))


def test_the_adapter_reads_the_files(shop):
    shop.check()
    assert shop.span() == ("2026-11-11T05", "2026-11-11T06")
    events = table(shop)
    assert Counter(events["action"].to_pylist()) == {"impression": 5, "click": 2, "order": 1}
    assert events["position"].to_pylist() == [1, 2, 3, None, None, 1, 2, None]
    assert events["value"].to_pylist()[4] == 19.9
    assert reasons(events) == {None: 8}
    assert len(events["event_id"].unique()) == 8
    assert sum(batch.num_rows for batch in shop.events("2026-11-11T06", "2026-11-11T06")) == 3


def test_the_products_are_items_and_their_price_is_a_feature(shop):
    batches = shop.entities("items", *shop.span())
    items = pa.Table.from_batches(batches, ENTITY_TABLES["items"]).to_pylist()
    assert [(item["item_id"], item["category"], item["numeric"]) for item in items] == [
        ("p1", "shoes", [("price", 49.0)]),
        ("p2", "shirts", [("price", 19.9)]),
        ("p3", "shirts", []),
    ]
    assert "price" in next(view for view in ATTRIBUTES if view.table == "items").numeric
    assert list(shop.entities("users", *shop.span())) == []


def test_the_line_stands_among_those_that_are_there():
    text = (ROOT / "feature_store" / "sources" / "__init__.py").read_text().splitlines()
    context = [line[1:] for line in PATCH if not line.startswith("+")]
    assert [line for line in text if line in context] == context
    for line in (IMPORT, ENTRY):
        assert line.replace("shop", "taobao").replace("Shop", "Taobao") in text


def test_the_errors_are_those_shown(shop, folder):
    shown = blocks("text")[0].splitlines()
    events = folder / "events.csv"
    found = []
    for old, new in (("visitor", "user"), ("19.90", "19.90 EUR")):
        events.write_text(EVENTS.replace(old, new))
        with pytest.raises(SourceError) as refusal:
            shop.check()
        found.append(str(refusal.value))
    events.write_text(EVENTS)
    (folder / "products.csv").unlink()
    with pytest.raises(SourceError) as refusal:
        shop.check()
    assert [*found, str(refusal.value)] == shown


def test_bad_rows_are_the_ingests_to_judge(shop, folder):
    rows = [
        "2026-11-11T05:00:09Z,r1,,p2,,clicked,",
        "2026-11-11T05:00:10Z,r1,ann,p2,,liked,",
        "2026-11-11T05:00:11Z,,ann,p2,,bought,-1",
    ]
    (folder / "events.csv").write_text(EVENTS + "\n".join(rows) + "\n")
    shop.check()
    assert reasons(table(shop)) == {None: 8, "null_key": 1, "unknown_action": 1, "bad_value": 1}
    (folder / "events.csv").write_text(EVENTS.splitlines()[0] + "\n")
    with pytest.raises(SourceError, match="holds no row"):
        shop.check()


@pytest.mark.parametrize(("place", "path"), [(0, "conf/shop.yaml"), (1, "conf/canonical.yaml")])
def test_the_configurations_are_accepted(shop, folder, place, path):  # noqa: ARG001
    assert f"`{path}`" in PAGE
    loaded = settings(blocks("yaml")[place], path, folder)
    GBDTConfig.from_dict(dict(loaded.train.gbdt))
    source = loaded.open_source()
    assert source.windows == {"click": 600, "order": 86400}
    assert source.time_zone == "Europe/Berlin"


def test_canonical_parquet_holds_the_same_events(shop):
    exec(CANONICAL, {})  # noqa: S102
    source = open_source("parquet", {"path": Path("data/canonical")})
    source.check()
    assert source.span() == shop.span()
    assert reasons(table(source)) == {None: 8}
    names = [name for name in SOURCE_EVENTS.names if name != "event_id"]
    assert table(source).select(names).equals(table(shop).select(names))


def test_the_query_finds_the_ndcg(tmp_path, capsys):
    place = {"warehouse": str(tmp_path / "w"), "catalog_uri": f"sqlite:///{tmp_path}/catalog.db"}
    store = Store(**place)
    row = {
        "evaluation": "hourly", "judged_hour": "2026-11-11T05", "name": "gbdt_ranker",
        "version": "1", "role": "candidate", "label": "click", "metric": "ndcg_at_10",
        "segment": "all", "value": 0.5, "low": 0.4, "high": 0.6, "groups": 9, "immature": 0,
        "cut": "2026-11-11T06", "hour": "2026-11-11T05",
    }  # fmt: skip
    rows = [row, {**row, "metric": "auc"}, {**row, "role": "popularity", "value": 0.3}]
    where = {"hour": row["hour"], "evaluation": "hourly"}
    store.commit_slice(pa.Table.from_pylist(rows, EVALUATIONS), "evaluations", where)
    store.close()
    namespace = dict(place)
    exec(QUERY, namespace)  # noqa: S102
    assert namespace["ndcg"]["value"].to_pylist() == [0.5, 0.3]
    assert "'groups': 9" in capsys.readouterr().out
