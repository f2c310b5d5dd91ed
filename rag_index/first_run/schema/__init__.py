"""What `init` knows of a database without a description: what people look for, what belongs together, who may see it.

`propose` is the face: it reads a catalog and returns a `Proposal`, whose text `scaffold` writes.
"""

from rag_index.first_run.schema.catalog import DatabaseCatalog, read_catalog
from rag_index.first_run.schema.proposed import Choices, HiddenRows, LeftOut, Proposal, ProposedIndex, TableUse
from rag_index.first_run.schema.reading import propose
from rag_index.first_run.schema.scaffold import Scaffold, proposed_settings, scaffold

__all__ = [
    "Choices", "DatabaseCatalog", "HiddenRows", "LeftOut", "Proposal", "ProposedIndex", "Scaffold", "TableUse",
    "propose", "proposed_settings", "read_catalog", "scaffold",
]  # fmt: skip
