"""Building the search index (HNSW) of a shard folder, in a child process: the engine holds the GIL for all of it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from rag_index.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

BUILD_INDEX = """\
import sys
import qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""


def build_index(folder: Path, name: str, *, inherit: int) -> None:
    """Build the search index of a shard that is closed. The child inherits the file descriptor `inherit`.

    Raises StoreError if the child fails.
    """
    command = [sys.executable, "-P", "-c", BUILD_INDEX, str(folder)]
    child = subprocess.run(command, capture_output=True, text=True, errors="replace", pass_fds=[inherit], check=False)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or [f"ended by signal {-child.returncode}"])[-1]
        raise StoreError(
            f"the search index of {name} was not built ({reason}), and searches work without it: "
            "check free memory and disk space, then run `rag-index` again"
        )
