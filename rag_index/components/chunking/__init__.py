"""Chunking: how documents become chunks. `open_chunker` returns the chunker of an index.

`text_chunker` splits prose and has the protocol, `code` splits source code at symbols, and
`context` adds contexts that a model writes. This package imports `core`, and of the components
`hosts` and `ledger` (for contexts alone). It is imported without tree-sitter and without a
connection.

Orders that must hold, and the tests (in tests/components/chunking) that fail if one does not:
- Equal documents give equal chunks, in each process: tests/test_contracts.py.
- Chunks cover the text in order, and no character is lost: test_text.py, code/test_symbols.py.
- A context is in the ledger as soon as it arrives, so that an outage loses none:
  test_servers_that_do_not_recover_fail_the_shard_and_written_contexts_are_kept.
- The fingerprint changes with everything that decides chunks or contexts:
  test_what_decides_contexts_changes_the_fingerprint_and_the_cache_key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.chunking.code import CodeChunker
from rag_index.components.chunking.text_chunker import Chunker, TextChunker
from rag_index.core.settings.index import CODE
from rag_index.core.settings.plugins import CHUNKERS, load_plugin

if TYPE_CHECKING:
    from rag_index.core.settings import IndexSettings, Settings

__all__ = ["Chunker", "open_chunker"]


def open_chunker(settings: Settings, index: IndexSettings, *, contexts: bool = True) -> Chunker:
    """Return the chunker of an index.

    Args:
        contexts: Whether the model that writes contexts for the index, if any, is used. Its servers
            must then answer.

    Raises:
        SettingsError: If there is no plug-in with the name in `chunker` of the index.
        EmbedderUnavailable: If the model's server does not answer.
        ModelMissing: If the server does not have the model.
        ModelChanged: If the hosts have different models of this name.
        EmbedderError: If the model cannot write.
    """
    chunker: Chunker = TextChunker(index.chunk_chars, index.chunk_overlap)
    if index.kind == CODE:
        chunker = CodeChunker(index.chunk_chars)
    if index.chunker is not None:
        found_for = f"chunker of index {index.name}"
        make_chunker = load_plugin(CHUNKERS, index.chunker, found_for)
        chunker = make_chunker(settings, index)
    if index.context is None or not contexts:
        return chunker
    # It imports the clients of servers, which most indexes do not need.
    from rag_index.components.chunking.context import ContextChunker

    return ContextChunker.open(settings, index.context, chunker)
