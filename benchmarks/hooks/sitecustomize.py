"""A hook that Python loads in every process whose PYTHONPATH names this folder. It replaces or
times the embedder.

BENCHMARK_AT_ONCE   use an embedder that answers at once, with vectors made in advance
BENCHMARK_TEXT_SECONDS  how long that embedder sleeps for each text, as if another machine embedded
it BENCHMARK_SPANS     a folder in which each process writes when that embedder began and ended, in
seconds since 1970 BENCHMARK_FIRST     a file to write the time of the first embedding to, in
seconds since 1970
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
TEXT_SECONDS = float(os.environ.get("BENCHMARK_TEXT_SECONDS", "0"))
SPANS = os.environ.get("BENCHMARK_SPANS")

if AT_ONCE or FIRST:
    from rag_index.components import embedders
    from rag_index.core.documents.work import Work

    original = embedders.open_embedder

    class InstantEmbedder:
        """An embedder that returns prepared vectors at once."""

        def __init__(self) -> None:
            import numpy as np

            self.stats = Work()
            self._vectors = list(
                np.random.default_rng(7).normal(size=(5000, 256)).astype(np.float32)
            )

        def identity(self) -> embedders.EmbedderIdentity:
            return embedders.EmbedderIdentity("local", "at once", "0" * 32, 256)

        def embed_documents(self, texts: Sequence[str]) -> list[Any]:
            began = time.time()
            if TEXT_SECONDS:
                time.sleep(len(texts) * TEXT_SECONDS)
            if SPANS:
                with (Path(SPANS) / str(os.getpid())).open("a") as file:
                    file.write(f"{began} {time.time()}\n")
            return (self._vectors * (len(texts) // len(self._vectors) + 1))[: len(texts)]

        def embed_queries(self, texts: Sequence[str]) -> list[Any]:
            return [self._vectors[len(text) % len(self._vectors)] for text in texts]

        def close(self) -> None:
            pass

    class TimedEmbedder:
        """A wrapper that writes down when the embedder first embedded texts."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def embed_documents(self, texts: Sequence[str]) -> Any:
            vectors = self._inner.embed_documents(texts)
            with suppress(FileExistsError), Path(str(FIRST)).open("x") as file:
                file.write(str(time.time()))
            return vectors

    def open_embedder(*arguments: Any, **named: Any) -> Any:
        """Replace `embedders.open_embedder`."""
        return InstantEmbedder() if AT_ONCE else TimedEmbedder(original(*arguments, **named))

    embedders.open_embedder = open_embedder
