"""The command `index-all`."""

from __future__ import annotations

from typing import Any

from rag_index.cli import Context, command
from rag_index.cli.runs import full_option, run_indexes, run_options


@command("index-all")
@full_option
@run_options
def index_all(context: Context, **options: Any) -> int:
    """Bring all indexes up to date."""
    return run_indexes(context, None, **options)
