"""Search: one question to any number of indexes at once, whose answers become one list of hits.

`Retriever` is the way in. A search makes a `Question`, reads the position of each index
(`positions`), asks the indexes (`fan_out`) and returns a page of hits (`pages`). To ask means: load
the live collections, count the words (`question_words`), embed the text (`query_model`), request
candidates, fuse them (`fusion`), compare their texts (`soft_match`) and judge them (`relevance`).

The package imports `components` and `core`, never `etl`; of its modules, each imports those below
it (contracts in pyproject.toml, `make lint`). Orders that must hold, in tests/search:
- position before store: test_an_answer_claims_no_commit_that_came_after_its_search
- words counted in all indexes before one is searched:
  test_the_bm25_of_a_hit_has_the_document_frequencies_of_all_indexes
- the database asked about candidates before any is ranked, for a number that words do not change:
  test_the_database_is_asked_for_as_many_documents_whatever_words_hidden_ones_have
"""

from __future__ import annotations

from rag_index.errors import SearchFailed
from rag_index.search.access import ALL_GROUPS, Caller
from rag_index.search.results import (
    AsOf,
    ChunkHit,
    Citation,
    Document,
    DocumentChunk,
    SearchHit,
    SearchResult,
    Verified,
)
from rag_index.search.retriever import Retriever

__all__ = [
    "ALL_GROUPS",
    "AsOf",
    "Caller",
    "ChunkHit",
    "Citation",
    "Document",
    "DocumentChunk",
    "Retriever",
    "SearchFailed",
    "SearchHit",
    "SearchResult",
    "Verified",
]
