"""Printing of text in columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["print_table"]


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns. The first row is the header; numbers are aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width)
            if cell.replace(",", "").isdigit() or (row is rows[0] and _is_numeric(rows, i))
            else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    return len(rows) > 1 and rows[1][column].replace(",", "").isdigit()
