"""How far up a document is found by its own summary, in the right index, in five, and in one of everything."""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.searches.printing import line
from benchmarks.searches.project import program
from rag_index import Retriever
from rag_index.core.settings import load_settings
from rag_index.first_run.samples import pydocs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.core.settings import EmbedderSettings

PLURAL = {"module": "modules", "class": "classes", "function": "functions", "method": "methods", "topic": "topics"}
UNION = " UNION ALL ".join(f"SELECT '{name}/' || name AS id, body FROM \"{table}\"" for table, name in PLURAL.items())
EVERYTHING = f'''
[[indexes]]
name = "everything"
query = """{UNION}"""
key = "id"
text = "body"
'''
"""A single index of all documents."""


def known_item(arguments: argparse.Namespace) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = folder / "rag-index.toml"
        pydocs.write(folder / "pydocs.db")
        items = known_items(folder / "pydocs.db", arguments.documents)
        extra = embedder_settings(arguments.model, stack, folder)
        text = pydocs.scaffold("pydocs.db").replace('text = ["summary", "body"]', 'text = "body"')
        config.write_text(f"{text}\n{EVERYTHING}\n{extra}")
        started = time.perf_counter()
        program(config, "index-all", "--json")
        seconds = time.perf_counter() - started
        print(f"{arguments.model}, indexed in {seconds:.0f} s: recall at 10, mean reciprocal rank")
        with Retriever.from_settings(config) as retriever:
            print_ranks(retriever, items)
        print("with random vectors for the queries, so that meaning is noise:")
        with Retriever(load_settings(config), open_embedder=NoiseEmbedder) as retriever:
            print_weights(retriever, items, "everything")


def embedder_settings(model: str, stack: ExitStack, folder: Path) -> str:
    """Return the TOML of the embedder. For MiniLM, start a real server."""
    if model == "wordllama":
        return ""
    from benchmarks.minilm import minilm_gguf
    from tests.live.ollama_server import OllamaServer, find_ollama

    ollama = find_ollama()
    if not isinstance(ollama, Path):
        sys.exit(ollama)
    server = stack.enter_context(OllamaServer(ollama))
    server.create("all-minilm-l6", minilm_gguf(folder / "minilm.gguf"))
    return f'[embedder]\nkind = "ollama"\nmodel = "all-minilm-l6"\nhosts = ["{server.url}"]\nnum_thread = 1\n'


def known_items(database: Path, count: int) -> list[tuple[str, str, str]]:
    """Return (index, document id, query) of `count` documents, and delete all others from the database.

    The query is the summary of a docstring, and only its body is indexed.
    """
    with closing(sqlite3.connect(database)) as db, db:
        items = [
            (table, name, summary)
            for table in pydocs.TABLES
            for name, summary in db.execute(
                f'SELECT name, summary FROM "{table}" WHERE length(body) >= 40 ORDER BY name'
            )
        ]
        chosen = random.Random(1).sample(items, min(count, len(items)))
        for table in pydocs.TABLES:
            names = json.dumps([name for where, name, _ in chosen if where == table])
            db.execute(f'DELETE FROM "{table}" WHERE name NOT IN (SELECT value FROM json_each(?))', [names])
    print(
        f"\nknown items: {len(chosen):,} documents in five indexes, bodies of docstrings, each searched by its summary"
    )
    return [(PLURAL[table], name, summary) for table, name, summary in chosen]


WEIGHTS = (1.0, 0.7, 0.5, 0.3, 0.0)


class NoiseEmbedder:
    """An embedder whose vectors have nothing to do with the query."""

    def __init__(self, settings: EmbedderSettings, *, expected: EmbedderIdentity) -> None:
        self._identity = expected
        self._chance = np.random.default_rng(1)

    def identity(self) -> EmbedderIdentity:
        return self._identity

    def embed_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        vectors = self._chance.normal(size=(len(texts), self._identity.dimension))
        return list((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))

    def close(self) -> None:
        pass


def print_ranks(retriever: Retriever, items: list[tuple[str, str, str]]) -> None:
    five = sorted(PLURAL.values())
    print_weights(retriever, items, "right")
    print_weights(retriever, items, "everything")
    for weight in WEIGHTS:
        found = [find_place(retriever, query, five, index, name, dense_weight=weight) for index, name, query in items]
        print_rank(f"all five, dense_weight {weight}", found)


def print_weights(retriever: Retriever, items: list[tuple[str, str, str]], which: str) -> None:
    """Print the ranks in one index: the right one, or the one that holds everything."""
    for weight in WEIGHTS:
        if which == "right":
            found = [
                find_place(retriever, query, [index], index, name, dense_weight=weight) for index, name, query in items
            ]
        else:
            found = [
                find_place(retriever, query, [which], which, f"{index}/{name}", dense_weight=weight)
                for index, name, query in items
            ]
        print_rank(f"{which} index, dense_weight {weight}", found)


def find_place(retriever: Retriever, query: str, indexes: list[str], index: str, name: str, **options: Any) -> int:
    """Return the place of a document among ten hits, from 1, or 0 if it is not among them."""
    hits = retriever.search_sync(query, indexes=indexes, limit=10, **options).hits
    return next((place for place, hit in enumerate(hits, 1) if (hit.index, hit.document_id) == (index, name)), 0)


def print_rank(what: str, places: list[int]) -> None:
    reciprocal = np.mean([1 / place if place else 0.0 for place in places])
    line(what, f"{100 * np.mean([place > 0 for place in places]):.1f} %", f"{reciprocal:.3f}")
