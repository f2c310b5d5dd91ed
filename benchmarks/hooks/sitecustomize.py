"""Read by every process of a benchmark whose PYTHONPATH names this folder: another embedder, or a clock.

BENCHMARK_AT_ONCE   the embedder answers at once, with vectors that were made before
BENCHMARK_FIRST     a file: when the first text was embedded, in seconds since 1970, is written into it
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE, FIRST = os.environ.get("BENCHMARK_AT_ONCE"), os.environ.get("BENCHMARK_FIRST")

if AT_ONCE or FIRST:
    from rag_index import embedders

    usual = embedders.open_embedder

    class AtOnce:
        """As the local embedder, but for the vectors."""

        def __init__(self) -> None:
            import numpy as np

            self.stats = embedders.RequestStats()
            self._vectors = list(np.random.default_rng(7).normal(size=(5000, 256)).astype(np.float32))

        def identity(self) -> embedders.EmbedderIdentity:
            return embedders.EmbedderIdentity("local", "at once", "0" * 32, 256)

        def embed_documents(self, texts: Sequence[str]) -> list[Any]:
            return (self._vectors * (len(texts) // len(self._vectors) + 1))[: len(texts)]

        def embed_query(self, text: str) -> Any:
            return self._vectors[len(text) % len(self._vectors)]

        def close(self) -> None:
            pass

    class Clocked:
        """Another embedder; when it first had embedded texts is noted."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def embed_documents(self, texts: Sequence[str]) -> Any:
            found = self._inner.embed_documents(texts)
            with suppress(FileExistsError), Path(str(FIRST)).open("x") as file:
                file.write(str(time.time()))
            return found

    def open_embedder(*arguments: Any, **named: Any) -> Any:
        """In place of the package's."""
        return AtOnce() if AT_ONCE else Clocked(usual(*arguments, **named))

    embedders.open_embedder = open_embedder
