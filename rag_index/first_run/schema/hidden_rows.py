"""What follows from hidden rows: what belongs to them is hidden with them, at any number of steps.

These are parts and children, trees, polymorphic references, what a banned person wrote, rows that
carry a hidden label by a table of links, rows that may refer to a hidden row by a column that
nobody declared, and copies of texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import Candidate, CandidateValue
from rag_index.first_run.schema.documents import is_of_copies, squeezed
from rag_index.first_run.schema.rulings import Ruling
from rag_index.first_run.schema.tables import NOTHING, Condition, Relation, Table, is_random
from rag_index.first_run.schema.words import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import Column

Conditions = dict[Table, list[Condition]]
PIECE, SHORTEST, COPIED_TEXTS = 40, 60, 60
"""Letters by which a copy is known, letters of a text that is long enough, and texts that are
looked for."""


def conditions(
    tables: Sequence[Table], own: Sequence[Condition], undeclared: Sequence[Relation] = ()
) -> Conditions:
    """Return what each table is read with: its own conditions, and that of what its rows belong
    to."""
    found: Conditions = {}

    def add(table: Table, below: tuple[Table, ...] = ()) -> None:
        if table in found or table in below:
            return
        ways = [*table.parents, *(one for one in undeclared if one.child is table)]
        for one in [*ways, *(far for _, far in _links(table))]:
            add(one.parent, (*below, table))
        found[table] = [
            *_conditions_of(table, [one for one in own if one.table is table], ways, found)
        ]

    for table in tables:
        add(table)
    return found


def _conditions_of(
    table: Table,
    made: list[Condition],
    ways: Sequence[Relation],
    found: Mapping[Table, list[Condition]],
) -> Iterator[Condition]:
    """Yield what a table is read with, given its own conditions and those of what its rows belong
    to."""
    for one in ways if table.rows else ():
        above = [condition for condition in found.get(one.parent, ()) if passes(one, condition)]
        above = [condition for condition in above if condition.is_whole] or above
        if above and one.parent is not table:
            says = "; ".join(
                [condition.says for condition in above if condition.through is None][:3]
            )
            told = f"its {' '.join(one.parent.noun)} is hidden" + (f" ({says})" if says else "")
            sql = f"({one.of_hidden(above)}) IS NOT TRUE"
            made.append(Condition(table, sql, told, one.column, through=one))
    for way, far in _links(table):
        above = [one for one in found.get(far.parent, ()) if one.through is None and one.reaches]
        if above:
            column, key = way.pairs[0]
            sql = far.child.columns[column].sql
            told = (
                f"its {far.parent.noun[-1]} is hidden"
                f" ({'; '.join(condition.says for condition in above)})"
            )
            rows = (
                f"SELECT {sql} FROM {far.child.sql} WHERE {sql} IS NOT NULL AND"
                f" {far.of_hidden(above)}"
            )
            made.append(Condition(table, f"{table.columns[key].sql} NOT IN ({rows})", told))
    yield from made
    yield from _below_hidden(table, made)


def _links(table: Table) -> Iterator[tuple[Relation, Relation]]:
    """Yield the ways from a table of links to this one, and to the labels that its rows carry."""
    for own in table.children if not table.is_label else ():
        link = own.child
        if (
            link.prose
            or link.title
            or link is table
            or own.pairs[1:]
            or len(link.columns) > known.MAX_JOINS
        ):
            continue
        for far in link.parents:
            few = far.parent.is_label or (
                far.parent.rows <= known.MAX_CHOICES and not far.parent.prose
            )
            if far.column != own.column and few and not (far.parent.is_people or far.pairs[1:]):
                yield own, far


def passes(one: Relation, condition: Condition) -> bool:
    """Return whether a condition of what rows refer to holds for the rows, too."""
    if one.parent.is_people and not known.CUSTOMERS & {*one.parent.noun}:
        return condition.bans and not one.is_pointer
    return condition.reaches and (one.may_refer or one.belongs)


def _below_hidden(table: Table, made: Sequence[Condition]) -> Iterator[Condition]:
    """Yield the condition that leaves out rows of a tree below a hidden one."""
    tree = [
        one
        for one in table.parents
        if one.parent is table and len(one.pairs) == 1 and not one.is_pointer
    ]
    made = [one for one in made if one.reaches]
    if not (tree and made and known.PARENT_WORDS & {*words(tree[0].column)}):
        return
    column, key = tree[0].pairs[0]
    own, above, place = table.columns[key].sql, table.columns[column].sql, table.sql
    shown = " AND ".join(one.sql for one in made)
    first = f"SELECT {own} FROM {place} WHERE ({shown}) IS NOT TRUE"
    below = f"SELECT one.{own} FROM {place} AS one JOIN hidden_rows ON one.{above} = hidden_rows.id"
    inner = f"WITH RECURSIVE hidden_rows (id) AS ({first} UNION {below}) SELECT id FROM hidden_rows"
    yield Condition(
        table,
        f"{own} NOT IN ({inner})",
        f"what {column} refers to is hidden",
        column,
        is_whole=True,
    )


# --- References that nobody declared, and copies ---


def undeclared_references(
    catalog: DatabaseCatalog, tables: Sequence[Table], hidden: Conditions
) -> Iterator[tuple[Ruling, Relation]]:
    """Yield the columns that may refer to a table with hidden rows, though no key says so, each
    with a question."""
    parents = [
        one for one in tables if hidden[one] and len(one.key) == 1 and (one.prose or one.title)
    ]
    parents = [one for one in parents if not (one.is_people or one.is_label or one.machine)]
    for table in [one for one in tables if one.rows]:
        for column in [one for one in table.columns.values() if _may_refer(table, one)]:
            values = [value for value in column.given if value not in NOTHING]
            for parent in sorted(parents, key=lambda one: one is not table):
                key = parent.columns[parent.key[0]]
                if (
                    key.kind != column.kind
                    or catalog.share_found(values, parent, key.name) < known.MIN_FOUND
                ):
                    continue
                called = {*parent.noun, *words(parent.own_name)} & {*words(column.name)}
                if len({*values}) < known.MIN_ROWS and not called:
                    continue
                if parent is table:
                    # its values are keys of its own table: a row that was copied, or what it hangs
                    # on
                    break
                relation = Relation(
                    table, parent, ((column.name, key.name),), column.filled, may_refer=True
                )
                rows = catalog.rows_that(table, relation.of_hidden(hidden[parent]))
                if 0 < rows <= known.HALF * table.rows:
                    why = (
                        f"may refer to {parent.name}, which has hidden rows: its values are keys"
                        " there"
                    )
                    shown = CandidateValue(
                        "of shown rows", "of shown rows", table.rows - rows, is_shown=True
                    )
                    some = (
                        shown,
                        CandidateValue("of hidden rows", "of hidden rows", rows, is_shown=False),
                    )
                    one = Candidate(
                        table.id_of(column.name), table.name, column.name, "asked", why, some
                    )
                    yield Ruling(one), relation
                    break


def _may_refer(table: Table, column: Column) -> bool:
    """Return whether a column may hold keys of another table: not each once, and no number that
    stands for itself."""
    if column.name in table.key or column.kind not in ("number", "text", "id"):
        return False
    declared = {name for one in table.declared for name in one["constrained_columns"]}
    ways = [one for one in table.parents if one.column == column.name]
    explained = any(one.belongs or one.parent.is_people or one.type_column for one in ways)
    if column.name in declared or explained or known.POINTERS & {*words(column.name)}:
        return False
    values = [value for value in column.given if value not in NOTHING]
    if (
        len({*map(str, values)}) < 2
        or column.distinct == 1
        or column.role in ("prose", "time", "flag", "locale", "secret", "personal")
    ):
        return False
    # `pid`, `belongs_to_id`, but not `amount` or `order_no`
    last = words(column.name)[-1]
    named = last.endswith("id") or last in known.GENERIC | known.PARENT_WORDS
    return is_random(values) or (named and last not in known.CODE_NAMES)


def copied_columns(
    catalog: DatabaseCatalog, tables: Sequence[Table], hidden: Conditions
) -> Iterator[tuple[Table, str, Table]]:
    """Yield the columns of other tables that hold texts of hidden rows, with the table of these
    rows."""
    # an old version that nobody sees says what the document says, too
    sources = [one for one in tables if hidden[one] and one.prose and not is_of_copies(one)]
    pieces = {one: some for one in sources if (some := _hidden_pieces(catalog, one, hidden[one]))}
    for table in tables if pieces else ():
        for name in table.prose:
            near = {of: some for of, some in pieces.items() if _may_copy(table, name, of)}
            shown = _letters(catalog, table, name, hidden[table]) if near else ""
            for of, some in near.items():
                found = sum(piece in shown for piece in some)
                if found >= max(1, known.SOME * len(some)):
                    yield table, name, of
                    break


def _may_copy(table: Table, name: str, of: Table) -> bool:
    """Return whether a column may be kept for searching, or for showing texts of rows beside:
    `last_post_text`."""
    related = {one.parent for one in table.parents} | {one.child for one in table.children}
    return of is not table and (of in related or is_of_copies(table) or of.noun[-1] in words(name))


def _hidden_pieces(catalog: DatabaseCatalog, table: Table, own: Sequence[Condition]) -> set[str]:
    """Return pieces of the texts that hidden rows of a table have, and no shown row of it."""
    found: set[str] = set()
    for name in table.prose:
        shown = _letters(catalog, table, name, own)
        sql = f"({' AND '.join(one.sql for one in own)}) IS NOT TRUE"
        for text in catalog.texts_that(table, name, sql, COPIED_TEXTS):
            letters = squeezed(text)
            piece = letters[len(letters) // 4 :][:PIECE]
            if len(letters) >= SHORTEST and piece not in shown:
                found.add(piece)
    return found


def _letters(catalog: DatabaseCatalog, table: Table, name: str, own: Sequence[Condition]) -> str:
    """Return the letters of the texts that shown rows of a table have in one column."""
    texts = table.columns[name].texts
    if own:
        sql = " AND ".join(one.sql for one in own)
        texts = tuple(catalog.texts_that(table, name, sql, known.MAX_SHOWN))
    return "\n".join(map(squeezed, texts))
