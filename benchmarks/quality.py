"""What searches find by meaning, by words and by both, in texts of every machine. Quoted in README.md.

    python benchmarks/quality.py [--sets docstrings functions packages] [--queries 1000] [--model wordllama|minilm]
                                 [--misspelt]

Each text is searched by what its author wrote about it: see benchmarks/searches/texts.py. The table has recall at 10
and, after the slash, the mean reciprocal rank at 10; "sum" is both without soft match. `--model minilm` needs an Ollama
server (found or built as for the tests) and the package index. `--misspelt` asks the queries with a typing error in one
word, and once more without correcting it. Below each table is the processor time of soft match for 50 candidates of a
query, whose texts it has not seen before.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sqlite3
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.searches.known_items import embedder_settings
from benchmarks.searches.printing import line
from benchmarks.searches.project import program
from benchmarks.searches.texts import SETS, known_texts
from rag_index import Retriever
from rag_index.core.settings import load_settings
from rag_index.search import retriever as retriever_module
from rag_index.search import soft_match, spelling
from rag_index.search.fusion import ranked

if TYPE_CHECKING:
    from benchmarks.searches.texts import KnownText
    from rag_index.search.question import Asked

warnings.filterwarnings("ignore", category=SyntaxWarning)

CONFIG = """\
[source]
url = "sqlite:///texts.db"
[[indexes]]
name = "texts"
table = "texts"
key = "id"
text = "body"
"""
COLUMNS = ("meaning", "words", "sum", "both")
SEED = 7
CANDIDATES = 50
"""Candidates of a query whose soft match is timed."""


def measure(which: str, model: str, queries: int, *, errors: bool) -> None:
    texts = known_texts(which)
    asked = [text for text in texts if text.query]
    asked = random.Random(SEED).sample(asked, min(queries, len(asked)))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with closing(sqlite3.connect(folder / "texts.db")) as db, db:
            db.execute("CREATE TABLE texts (id TEXT PRIMARY KEY, body TEXT)")
            db.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?)", [(text.name, text.text) for text in texts])
        config = folder / "rag-index.toml"
        config.write_text(CONFIG + embedder_settings(model, stack, folder))
        program(config, "index-all", "--json")
        print(f"\n{which}: {len(texts):,} texts, {len(asked):,} queries, recall at 10")
        line("", *(f"{name:>12}" for name in COLUMNS))
        print_line(model, config, asked)
        if not errors:
            return
        asked = misspelt(asked)
        print_line("misspelt", config, asked)
        with patch.object(spelling, "MAX_CORRECTED", 0):
            print_line("misspelt, not corrected", config, asked)


def misspelt(asked: list[KnownText]) -> list[KnownText]:
    """Return the queries that have a word of five letters or more, with one edit in one of these."""
    chance, found = random.Random(SEED), []
    for text in asked:
        words = re.findall(rf"\b[^\W\d_]{{{spelling.MIN_WORD_LETTERS},}}\b", text.query)
        if words:
            word = chance.choice(words)
            wrong = chance.choice(list(spelling.spellings(word.lower())))
            found.append(replace(text, query=re.sub(rf"\b{word}\b", wrong, text.query)))
    return found


def print_line(name: str, config: Path, asked: list[KnownText]) -> None:
    found, corrected, milliseconds = asyncio.run(hits(config, asked))
    shares, ranks = (found > 0).mean(axis=0), found.mean(axis=0)
    cells = (f"{100 * share:.1f}/{rank:.3f}" for share, rank in zip(shares, ranks, strict=True))
    line(name, *cells, f"{corrected} of {len(asked)} corrected")
    median, most = np.percentile(milliseconds, [50, 95])
    print(f"  soft match of {CANDIDATES} candidates: {median:.1f} ms of CPU a query, 95 in 100 at most {most:.1f}")


async def hits(config: Path, asked: list[KnownText]) -> tuple[Any, int, list[float]]:
    """Return the reciprocal rank of each query's text, 0 if it is not found, in a column for each way of searching.

    The others are the number of queries whose words were corrected, and the milliseconds of soft match by query.
    """
    settings = load_settings(config)
    weight, corrected = settings.dense_weight, 0
    rows: list[list[float]] = []
    milliseconds: list[float] = []

    def timed(found: Asked) -> None:
        """Measure soft match while candidates have their texts, and then call it as a search does."""
        points = {one.index: [replace(point) for point in one.points[:CANDIDATES]] for one in found.answered}
        some = {one.index: replace(one, points=points[one.index]) for one in found.answered}
        soft_match._table().text.cache_clear()
        began = time.thread_time()
        soft_match.add_soft_match(replace(found, answers=some))
        milliseconds.append(1000 * (time.thread_time() - began))
        soft_match.add_soft_match(found)

    with patch.object(retriever_module, "add_soft_match", timed):
        async with Retriever(settings) as retriever:
            for text in asked:
                found = await retriever.candidates(text.query)
                corrected += bool(found.question.corrected)
                ways = (
                    ranked(found, 1.0),
                    ranked(found, 0.0),
                    without_soft_match(found, weight),
                    ranked(found, weight),
                )
                place = ("texts", text.name)
                rows.append([1 / (1 + way.index(place)) if place in way else 0.0 for way in ways])
    return np.array(rows), corrected, milliseconds


def without_soft_match(found: Asked, weight: float) -> list[tuple[str, str]]:
    """Return the best documents by meaning and words alone."""
    answers = {
        one.index: replace(one, points=[replace(point, soft=0.0) for point in one.points]) for one in found.answered
    }
    return ranked(replace(found, answers=answers), weight)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--model", choices=["wordllama", "minilm"], default="wordllama")
    parser.add_argument("--misspelt", action="store_true")
    arguments = parser.parse_args()
    for which in arguments.sets:
        measure(which, arguments.model, arguments.queries, errors=arguments.misspelt)


if __name__ == "__main__":
    main()
