"""Printing of text in columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

MISSING = "-"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns. The first row is the header; numbers are aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width)
            if _is_number(cell) or (_is_numeric(rows, i) and (row is rows[0] or cell == MISSING))
            else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Return whether a column has numbers: all its cells but the header are numbers or missing."""
    cells = [row[column] for row in rows[1:] if row[column] != MISSING]
    return bool(cells) and all(map(_is_number, cells))


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").isdigit()
