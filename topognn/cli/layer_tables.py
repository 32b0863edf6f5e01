"""Tables of layers as the commands show and write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from topognn.baselines.tables import LayerTable


def join_tables(kind: str, tables: Mapping[str, LayerTable]) -> LayerTable:
    """Return tables, and the same in the released tables' names, as one; columns of one name have the same numbers."""
    from topognn.baselines.tables import LayerTable

    parts = [*tables.values(), *(table.published for table in tables.values())]
    rows: dict[str, dict[str, Any]] = {layer: {} for layer in parts[0]}
    for part in parts:
        for layer, row in part.items():
            rows[layer] = {**row, **rows[layer]}
    columns = list(dict.fromkeys(name for part in parts for name in part.columns))
    return LayerTable(kind, rows, columns)


def tables_to_json(tables: Mapping[str, LayerTable]) -> dict[str, Any]:
    """Return each table in our names, and where it has some, in the released tables'; what is not defined is None."""
    content = {}
    for name, table in tables.items():
        content[name] = table.to_dict()
        if table.published_names:
            content[f"{name}_published"] = table.published.to_dict()
    return content


def show_table(console: Console, whole: LayerTable, titles: Mapping[str, str]) -> None:
    """Print those of the columns that have a title: a row a layer, the means, how many are left out of them."""
    from rich.text import Text

    from topognn.cli.display import new_table

    shown = [name for name in titles if name in whole.columns]
    right = [titles[name] for name in shown]
    table = new_table("layer", *right, right=right)
    table.padding = (0, 2, 0, 0)
    table.columns[0].no_wrap = True
    for layer, row in whole.items():
        table.add_row(Text(layer), *(format_value(row[name]) for name in shown))
    means, undefined = whole.means, whole.undefined
    table.add_section()
    table.add_row("mean", *(format_value(means[name]) for name in shown))
    table.add_row("undefined in", *(str(undefined[name] or "") for name in shown))
    console.print(table, soft_wrap=False)
    console.print()
    others = ", ".join(name for name in whole.columns if name not in shown)
    console.print(Text(f"--csv and --json also have: {others}"))


def format_value(value: Any) -> str:
    """Return a number in few enough digits for a dozen columns, a dash where it is not defined.

    >>> format_value(12345), format_value(0.123456), format_value(None)
    ('12,345', '0.1235', '-')
    """
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
