"""Which embedder a settings file should name: what a database's texts say of it, and how the file
records it."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

from rag_index.components.embedders.candidates import (
    ProposedEmbedder,
    propose_model,
    rate_comment,
    sample_texts,
)
from rag_index.core.documents.text_languages import has_unknown_language

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.proposed import Proposal

COMMENTED = """\
# [embedder]
# kind = "local"                        # wordllama, in the process, without a server
# kind = "fastembed"                    # a model in the process that finds more; a first run takes 20 times as long
# model = "BAAI/bge-small-en-v1.5"      # downloaded once; needs the extra fastembed
# kind = "ollama"                       # one or more servers; first run `ollama pull nomic-embed-text`
# model = "nomic-embed-text"
# hosts = ["http://127.0.0.1:11434"]
"""
"""The section of a file that proposes no embedder."""
ANOTHER = "the language of the texts"
"""Stands for a language that search by words does not know."""
WIDTH = 118


def propose_embedder(
    proposal: Proposal, catalog: DatabaseCatalog, hosts: Sequence[str], say: Callable[[str], object]
) -> ProposedEmbedder:
    """Return the embedder for the texts that the proposed indexes have. `hosts` may be Ollama
    servers."""
    texts = sample_texts(_texts(proposal, catalog))
    return propose_model(hosts, texts, _languages(proposal, texts), say)


def embedder_section(proposed: ProposedEmbedder) -> str:
    """Return the section `[embedder]` of a settings file, with the reason as a comment."""
    reason = "".join(
        f"# {line}\n" for line in textwrap.wrap(proposed.why, WIDTH, break_on_hyphens=False)
    )
    found = proposed.candidate
    if found is None:
        return reason + COMMENTED
    lines = [
        rate_comment(proposed.chars_per_second, found.model),
        "[embedder]",
        f"kind = {json.dumps(found.kind)}",
        f"model = {json.dumps(found.model)}",
    ]
    if found.host:
        lines.append(f"hosts = [{json.dumps(found.host)}]")
    lines.append(
        '# kind = "local"                        # wordllama instead, without the lines above'
    )
    return reason + "\n".join(lines) + "\n"


def _texts(proposal: Proposal, catalog: DatabaseCatalog) -> Iterator[str]:
    """Yield the sampled texts of the columns that searches reach, as the database has them."""
    read = {
        table.name: table.columns
        for table in proposal.tables
        if table.becomes in ("document", "part")
    }
    for table in catalog.tables:
        for use in read.get(table.name, ()):
            if use.use == "text" and use.name in table.columns:
                values = table.columns[use.name].values
                yield from (value for value in values if isinstance(value, str))


def _languages(proposal: Proposal, texts: Sequence[str]) -> list[str]:
    """Return the languages of all indexes; what search by words takes for English may be none that
    it knows."""
    found = dict[str, None]()
    for index in proposal.indexes:
        language = index.settings.get("language") or "english"
        found |= dict.fromkeys([language] if isinstance(language, str) else language)
    if [*found] == ["english"] and has_unknown_language(texts):
        return [ANOTHER]
    return [*found]
