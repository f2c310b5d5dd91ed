"""An evaluation with known items: the values of a column are the queries, and each should find its own document.

Where the text of an index contains the column, the live index would find each document by its own words. So samples of
all indexes are then indexed without the column, in a store that is thrown away, and that store is searched.
"""

from __future__ import annotations

import tempfile
import uuid
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.chunking import open_chunker
from rag_index.embedders import open_embedder
from rag_index.evaluation.evaluation import evaluate
from rag_index.evaluation.known_items import column_queries, in_text, with_column
from rag_index.indexing.pipeline import AllDocuments, Pool, index_pages
from rag_index.indexing.scan import Scan
from rag_index.indexing.step_retries import call_plainly
from rag_index.sources import open_source
from rag_index.sources.sample import Sample, read_sample
from rag_index.tuning.benchmark import sample_run, settings_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.evaluation.evaluation import Evaluation
    from rag_index.evaluation.golden import GoldenQuery
    from rag_index.evaluation.measures import Metric
    from rag_index.settings import Settings


@contextmanager
def temporary_indexes(settings: Settings, samples: Mapping[str, Sample]) -> Iterator[Settings]:
    """Index samples, by the name of their index, and give settings with which they are searched.

    The real store and ledger are not opened. One process embeds. Raises as `pipeline.index_pages`.
    """
    with tempfile.TemporaryDirectory(prefix="rag-index-evaluate-") as folder:
        temporary = settings_in(Path(folder), settings)
        with closing(open_embedder(temporary.embedder)) as embedder:
            identity = embedder.identity()
            for name, sample in samples.items():
                with sample_run(temporary, name, sample, str(uuid.uuid4())) as run:
                    scan = Scan.begin(
                        run, identity, open_chunker(run.settings, run.index), workers=1, documents=len(sample.documents)
                    )
                    with Pool(scan, call_plainly, embedder=embedder) as pool:
                        index_pages(scan, AllDocuments().pages(run, call_plainly), pool)
                    scan.publish()
        yield temporary


@dataclass(frozen=True, slots=True)
class ColumnItems:
    """Queries made of a column, and where they are asked: a sample of each index, or None for the live indexes."""

    settings: Settings
    queries: list[GoldenQuery]
    samples: dict[str, Sample] | None


def read_items(settings: Settings, names: Sequence[str], column: str, *, queries: int, documents: int) -> ColumnItems:
    """Read at most `queries` values of the column from each index, and its sample if the live ones cannot be asked.

    Raises SettingsError or SourceError if an index has no such column, or nothing else than it to search.
    """
    given = [settings.index(name) for name in names]
    temporary = any(in_text(index, column) for index in given)
    indexes = [with_column(index, column) for index in given]
    changed = settings.model_copy(update={"indexes": indexes})
    samples: dict[str, Sample] = {}
    made: list[GoldenQuery] = []
    for index in indexes:
        with closing(open_source(changed, index)) as source:
            source.check()
        sample = samples[index.name] = read_sample(changed, index, documents if temporary else queries)
        made += column_queries(index, column, sample.documents, queries)
    return ColumnItems(changed, made, samples if temporary else None)


def evaluate_items(
    items: ColumnItems, metrics: Sequence[Metric], on_answer: Callable[[int], None], *, worst: int = 5
) -> Evaluation:
    """Evaluate the indexes with these queries. Raises as `evaluate` and `temporary_indexes`."""
    names = [index.name for index in items.settings.indexes]
    live, samples = items.settings, items.samples
    with nullcontext(live) if samples is None else temporary_indexes(live, samples) as settings:
        return evaluate(settings, items.queries, names, metrics, on_answer, worst=worst)
