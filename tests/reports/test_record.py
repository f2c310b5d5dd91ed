"""What a run writes down of documents that could not be indexed."""

import logging

from rag_index.core.documents.batches import Failure, ShardStats, WrittenShard
from rag_index.core.reports.record import RunRecord
from rag_index.core.settings import EmbedderSettings


def test_a_reason_is_one_warning_and_each_part_that_a_document_lacks_is_another(caplog):
    record = RunRecord("notes")
    lacks = [Failure(str(i), f"file {i} is empty; page {i} has no text", kind="incomplete") for i in range(2)]
    failed = [Failure(str(i), f"Ollama died at text {i}; pull the model again") for i in range(2, 5)]
    record.add(WrittenShard(1, [], [], [], [], [*lacks, *failed], ShardStats()), new=0)
    with caplog.at_level(logging.WARNING):
        record.end(EmbedderSettings(), on_server=False)
    assert [line.message for line in caplog.records] == [
        "notes: 3 documents failed: the first: Ollama died at text 2; pull the model again",
        "notes: 2 documents incomplete: the first: file 0 is empty",
        "notes: 2 documents incomplete: the first: page 0 has no text",
    ]
