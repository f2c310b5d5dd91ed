"""What `init` knows of a database without a description: what people look for, what belongs together, who may see it.

`propose` reads a catalog and returns a `Proposal`; `scaffold` writes its settings file, `screen` its lines for people.
"""

from rag_index.first_run.schema.catalog import DatabaseCatalog, read_catalog
from rag_index.first_run.schema.embedder import propose_embedder
from rag_index.first_run.schema.proposed import Choices, HiddenRows, LeftOut, Proposal, ProposedIndex, TableUse
from rag_index.first_run.schema.reading import propose
from rag_index.first_run.schema.scaffold import (
    Scaffold,
    nothing_found,
    proposed_settings,
    scaffold,
    source_url,
    with_embedder,
)

__all__ = [
    "Choices", "DatabaseCatalog", "HiddenRows", "LeftOut", "Proposal", "ProposedIndex", "Scaffold", "TableUse",
    "nothing_found", "propose", "propose_embedder", "proposed_settings", "read_catalog", "scaffold", "source_url",
    "with_embedder",
]  # fmt: skip
