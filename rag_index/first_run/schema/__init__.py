"""What `init` knows of a database without a description: what people look for, what belongs
together, who may see it.

`propose` reads a catalog and returns a `Proposal`. `answers` has what a person, a page or a file
says of it. `scaffold` writes its settings file, and `screen` its lines for people and its JSON for
programs.
"""

from rag_index.first_run.schema.answers import Answers
from rag_index.first_run.schema.candidates import Candidate
from rag_index.first_run.schema.catalog import DatabaseCatalog, read_catalog
from rag_index.first_run.schema.embedder import propose_embedder
from rag_index.first_run.schema.proposed import ColumnUse, Proposal, ProposedIndex, TableUse
from rag_index.first_run.schema.reading import propose
from rag_index.first_run.schema.scaffold import (
    Scaffold,
    nothing_found,
    proposed_settings,
    scaffold,
    source_url,
)

__all__ = [
    "Answers",
    "Candidate",
    "ColumnUse",
    "DatabaseCatalog",
    "Proposal",
    "ProposedIndex",
    "Scaffold",
    "TableUse",
    "nothing_found",
    "propose",
    "propose_embedder",
    "proposed_settings",
    "read_catalog",
    "scaffold",
    "source_url",
]
