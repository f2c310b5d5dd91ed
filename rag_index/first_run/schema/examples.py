"""Example rows for the open questions of `init --json --examples`, without what an assistant must
not read."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rag_index.components.sources.secret_values import looks_secret
from rag_index.errors import shortened
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.reading import tables_read
from rag_index.first_run.schema.words import words

if TYPE_CHECKING:
    from rag_index.first_run.schema.candidates import Candidate, CandidateValue
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.scaffold import Scaffold
    from rag_index.first_run.schema.tables import Table

MAX_ROWS = 2
MAX_CHARS = 200
READ = ("prose", "choice", "time")
"""The roles of columns that examples have beside the title. Names in other columns may be those of
persons."""
PERSON = re.compile(r"\w+(?:ant|ate|ee|ent|er|ian|ist|or)")
"""What nouns of persons end with, as others do: rows with a name are persons then."""
CONTACT = re.compile(r"[\w.+-]+@[\w-]+\.\w|(?<!\w)(?:\+\d|0\d)[\d ()/.-]{6,}\d")
"""An e-mail address or a telephone number inside of a text."""


def add_examples(questions: list[dict[str, Any]], made: Scaffold) -> None:
    """Add `examples` to each value of the open questions: rows that nothing else hides.

    There are none of persons, and no column has secrets or personal data, whatever the answers say
    of it.
    """
    if made.catalog is None:
        return
    decisions = replace(made.answers.decisions(made.first), columns={})
    tables = {table.name: table for table in tables_read(made.catalog, decisions)}
    candidates = {one.id: one for one in made.proposal.candidates}
    for question in questions:
        candidate = candidates[question["id"]]
        table = tables[candidate.table]
        if _is_about_persons(table) or not question["is_open"]:
            continue
        for printed, value in zip(question["values"], candidate.values, strict=True):
            printed["examples"] = _examples(made.catalog, table, candidate, value)


def _examples(
    catalog: DatabaseCatalog, table: Table, candidate: Candidate, value: CandidateValue
) -> list[dict[str, str]]:
    """Return rows with a value as objects, without those that other columns hide."""
    own = f"$visible({candidate.id})"
    conditions = [one.sql for one in table.conditions if one.sql != own]
    if candidate.column:
        has_value = catalog.shows(
            table, candidate.column, candidate.key, candidate.kind, [value.value]
        )
        conditions.append(has_value)
    names = _readable(table)
    found = []
    condition = " AND ".join(conditions) or "1 = 1"
    for row in catalog.rows_with(table, names, condition, MAX_ROWS):
        example = {}
        for name, given in zip(names, row, strict=True):
            if not given:
                continue
            text = shortened(str(given), MAX_CHARS)
            if not (looks_secret(text) or CONTACT.search(text)):
                example[name] = text
        found.append(example)
    return found


def _is_about_persons(table: Table) -> bool:
    """Return whether rows are persons: by their noun, or as an `applicant` with a name."""
    if table.is_people or known.PERSONS & {*table.noun}:
        return True
    if not PERSON.fullmatch(table.noun[-1]):
        return False
    # an `applicant` with a name, but not a `document` with a title
    return any(words(name)[-1] == "name" for name in table.title_columns)


def _readable(table: Table) -> list[str]:
    """Return the columns that anybody may read who sees the row."""
    read = [name for name, one in table.columns.items() if one.role in READ]
    found = []
    for name in dict.fromkeys([*table.title_columns, *read]):
        column = table.columns.get(name)
        if column is None or not (column.why or column.role in ("secret", "personal")):
            found.append(name)
    return found
