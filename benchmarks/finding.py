"""What searches find, in all sets of documents with queries, on one page. Quoted in README.md.

    python benchmarks/finding.py [--sets cranfield …] [--collections DIR] [--folder DIR]

Each set is indexed with default settings (in `--folder` it is kept for the next time) and asked by
`Retriever.search`. See benchmarks/searches/sets.py for the sets. The columns: queries; nDCG or
recall, and MRR, at 10; the share of queries that are told that nothing fits, of the set's own and
of nonsense of 2 to 40 words; how many hits are right by their relevance, in fifths; and
milliseconds of processor time a query.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.searches.project import program
from benchmarks.searches.sets import SETS, JudgedSet, nonsense
from rag_index import Retriever
from rag_index.search.evaluation.measures import Metric, measure, parse_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIG = """\
[source]
url = "sqlite:///docs.db"
[[indexes]]
name = "docs"
table = "doc"
key = "id"
text = ["title", "text"]
"""
BINS = 5


def build(judged: JudgedSet, folder: Path) -> Path:
    """Index the documents of a set, unless it is done, and return the settings file."""
    config = folder / "rag-index.toml"
    if not config.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / "docs.db")) as db, db:
            db.execute("CREATE TABLE doc (id TEXT PRIMARY KEY, title TEXT, text TEXT)")
            db.executemany("INSERT INTO doc VALUES (?, ?, ?)", judged.documents)
        config.write_text(CONFIG + judged.settings)
        program(config, "index-all", "--json")
    return config


@dataclass(frozen=True, slots=True)
class Findings:
    """What all queries of a set found.

    Attributes:
        measured: The mean of nDCG or recall, and of MRR, at 10.
        refused: The share of the set's own queries that were told that nothing fits.
        told: The share of nonsense that was told so.
        relevances: The relevance of each hit.
        right: Whether each hit is right.
        milliseconds: The processor time of a query.
    """

    measured: tuple[float, float]
    refused: float
    told: float
    relevances: list[float]
    right: list[bool]
    milliseconds: float


def first_metric(judged: JudgedSet) -> Metric:
    return parse_metric("nDCG@10" if judged.graded else "recall@10")


def ask(judged: JudgedSet, config: Path, strange: Sequence[str]) -> Findings:
    """Ask all queries of a set, and strange ones, which nothing fits."""
    metrics = [first_metric(judged), parse_metric("MRR@10")]
    found, refused, relevances, right = [], [], list[float](), list[bool]()
    with Retriever.from_settings(config) as retriever:
        retriever.search_sync("warm up")
        began = time.process_time()
        for query, relevant in judged.queries:
            result = retriever.search_sync(query)
            ids = [hit.document_id for hit in result.hits]
            grades = {document: grade for document, grade in relevant.items() if grade > 0}
            found.append([measure(metric, ids, grades) for metric in metrics])
            refused.append(result.nothing_fits)
            relevances += [hit.relevance for hit in result.hits]
            right += [hit.document_id in relevant for hit in result.hits]
        milliseconds = 1000 * (time.process_time() - began) / len(judged.queries)
        told = [retriever.search_sync(query).nothing_fits for query in strange]
    first, rank = np.mean(found, axis=0)
    return Findings(
        (first, rank),
        float(np.mean(refused)),
        float(np.mean(told)),
        relevances,
        right,
        milliseconds,
    )


def report(judged: JudgedSet, config: Path) -> str:
    """Ask all queries of a set, and return its line."""
    found = ask(judged, config, nonsense(judged))
    places = np.minimum((np.array(found.relevances) * BINS).astype(int), BINS - 1)
    bins = [np.array(found.right)[places == number] for number in range(BINS)]
    shares = " ".join(f"{one.mean():.2f}" if len(one) >= 20 else "   –" for one in bins)
    name = f"{judged.name} ({len(judged.documents):,})"
    metric, (first, rank) = str(first_metric(judged)), found.measured
    return (
        f"{name:<24}{len(judged.queries):>5}  {metric:<9} {first:.3f}  {rank:.3f} "
        f" {found.refused:>6.1%}  {found.told:>6.1%}   {shares}  {found.milliseconds:5.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument(
        "--collections",
        type=Path,
        help="a folder of collections with docs.db, topics.tsv, qrels.txt",
    )
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print(
        "set (documents)       queries  metric           MRR    nothing fits    right by relevance,"
        " in fifths   ms"
    )
    print(" " * 53 + "own  nonsense")
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.sets:
            if (judged := SETS[name](arguments.collections)) is not None:
                print(
                    report(judged, build(judged, (arguments.folder or Path(temporary)) / name)),
                    flush=True,
                )


if __name__ == "__main__":
    main()
