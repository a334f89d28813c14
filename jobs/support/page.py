"""The shell of every page that a job makes: one self-contained file, light or dark, also small."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from typing import Final

__all__ = ["figures", "page", "section", "table"]

_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 90rem; margin: 2rem auto;
  padding: 0 1rem }}
main {{ display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)) }}
figure {{ margin: 0; background: #fff; border-radius: .5rem; padding: .5rem }}
svg {{ width: 100%; height: auto }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .9rem }}
td, th {{ padding: .35rem .7rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid #8884 }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
.warn td:first-child, .accepted td:first-child {{ color: #b60; font-weight: bold }}
.fail td:first-child {{ color: #d22; font-weight: bold }}
@media (max-width: 40rem) {{
  thead {{ display: none }} table, tbody, tr, td {{ display: block }}
  tr {{ border-bottom: 1px solid #8884; padding: .5rem 0 }}
  td, td.number {{ border: 0; padding: 0 .2rem; text-align: left; white-space: normal }}
  td::before {{ content: attr(data-name) ": "; color: GrayText }}
}}
</style><h1>{title}</h1><p>{words}</p>{body}</html>
"""


def page(title: str, words: str, *parts: str) -> str:
    """A page of a title, a paragraph, and parts made by the functions below."""
    return _PAGE.format(title=html.escape(title), words=html.escape(words), body="".join(parts))


def section(title: str, *parts: str) -> str:
    """Parts under a heading."""
    return f"<h2>{html.escape(title)}</h2>{''.join(parts)}"


def figures(drawn: Iterable[str]) -> str:
    """SVG elements beside one another where there is room."""
    return f"<main>{''.join(f'<figure>{svg}</figure>' for svg in drawn)}</main>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Collection[str] = (),
    levels: Sequence[str] = (),
) -> str:
    """A table; on a small screen each row is a block of named values.

    Args:
        numbers: the columns of ``head`` that hold numbers.
        levels: a class for each row, by which its first cell is coloured.
    """
    kinds = [' class="number"' if name in numbers else "" for name in head]
    names = [html.escape(name) for name in head]
    shown = []
    for row, level in zip_longest(rows, levels, fillvalue=""):
        cells = (
            f'<td data-name="{name}"{kind}>{html.escape(cell)}</td>'
            for name, kind, cell in zip(names, kinds, row, strict=True)
        )
        shown.append(f'<tr class="{level}">{"".join(cells)}</tr>')
    titles = "".join(f"<th{kind}>{name}</th>" for name, kind in zip(names, kinds, strict=True))
    return (
        f'<div class="wide"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(shown)}</tbody></table></div>"
    )
