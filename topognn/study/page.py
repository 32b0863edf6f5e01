"""A study as one HTML file: no network, readable on a phone, tables that sort."""

from __future__ import annotations

import base64
import html
from typing import Any

import pandas as pd

from topognn.study.analysis import Analysis
from topognn.study.figures import draw_figures
from topognn.study.summary import describe, summarise

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a202c; background: #fff; margin: 0 auto; padding: 1rem;
  max-width: 70rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { width: 100%; height: auto; } figcaption { font-size: .875rem; color: #4a5568; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e2e8f0; white-space: nowrap; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
.text { text-align: left; }
th button { font: inherit; font-weight: 600; border: 0; background: none; padding: .4rem 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
summary { cursor: pointer; padding: .4rem 0; }
"""
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], at = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[at].dataset.value;
  const rows = [...body.rows].sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
  });
  body.append(...rows);
});
"""
TITLES = {
    "regression": "Adjusted R2, every group",
    "prediction": "Skill in cross-validation, every group",
    "ranking": "Rank agreement, every group",
    "importance": "Importance of each topometric",
    "unique": "What each topometric adds to the others",
}


def make_page(analysis: Analysis, title: str) -> str:
    """Return the report as HTML text, everything in it.

    Args:
        analysis: What :func:`topognn.study.analysis.analyse` returned.
        title: What was studied.
    """
    figures = "".join(
        f'<figure><h3>{html.escape(name)}</h3><img alt="{html.escape(name)}: {html.escape(text)}" src="{_embed(svg)}">'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
        for name, (svg, text) in draw_figures(analysis).items()
    )
    details = "".join(
        f"<details><summary>{html.escape(TITLES[name])} ({len(table):,} rows)</summary>"
        f"{make_table(table, name)}</details>"
        for name, table in analysis.tables().items()
    )
    said = "".join(f"<li>{html.escape(line)}</li>" for line in describe(analysis))
    notes = "".join(f"<li>{html.escape(line)}</li>" for line in analysis.notes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
<ul id="said">{said}</ul>
<h2>By set of features</h2>
<p>Means over groups (model and data set) or cells (group and sparsity). <b>pooled</b>, <b>within</b>: adjusted R2 over
all sparsities, and at equal sparsity; <b>null 95</b>: what permuted algorithm names reach in one of twenty cases;
<b>skill</b>: how much better than sparsity alone networks are predicted that were not seen; <b>tau</b>, <b>rbo</b>:
how well algorithms are ranked. Tap a heading to sort.</p>
{make_table(summarise(analysis), "summary")}
<h2>Figures</h2>
<div class="figures">{figures}</div>
<h2>All results</h2>
{details}
<h2>Notes</h2>
<ul>{notes}</ul>
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _embed(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def make_table(table: Any, name: str) -> str:
    """Return a DataFrame as an HTML table whose headings sort.

    >>> make_table(pd.DataFrame({"tau": [0.5]}), "t").partition("<tbody>")[2]
    '<tr><td data-value="0.5">0.500</td></tr></tbody></table></div>'
    """
    is_text = [not pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]
    kinds = [' class="text"' if text else "" for text in is_text]
    head = "".join(
        f'<th scope="col"{kind}><button type="button">{html.escape(str(column).replace("_", " "))}</button></th>'
        for column, kind in zip(table.columns, kinds, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(_make_cell(value, kind) for value, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return f'<div class="wide"><table id="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _make_cell(value: Any, kind: str) -> str:
    if pd.isna(value):
        return f'<td{kind} data-value="">\N{EN DASH}</td>'
    if isinstance(value, float):
        return f'<td data-value="{value!r}">{format_value(value)}</td>'
    text = html.escape(str(value))
    return f'<td{kind} data-value="{text}">{text}</td>'


def format_value(value: float) -> str:
    r"""Return a number for a table of results: three decimals, fewer where it is large, a true minus sign.

    >>> format_value(0.12345), format_value(-12.3) == "\N{MINUS SIGN}12.3", format_value(0.6)
    ('0.123', True, '0.600')
    """
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")
