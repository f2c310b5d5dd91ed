"""What becomes of each table: a document, a part or a label of another one, or nothing.

What has a name of its own, or was written one by one, is a document; what hangs on one is a part of
it; a small list of names that others carry is a label. All other tables are left out, with the
reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.columns import SENTENCE
from rag_index.first_run.schema.proposed import CHOSEN, UNREAD
from rag_index.first_run.schema.tables import Relation
from rag_index.first_run.schema.words import is_any, singular, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.first_run.schema.candidates import Place
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.tables import Table

NO_TEXT = "has no text of its own"
"""Why a table is left out that others may tell of all the same."""


@dataclass(frozen=True, slots=True)
class Part:
    """How rows of another table belong to a document."""

    relation: Relation
    """From the rows to what they hang on: the document, or a row between (`up`)."""
    up: Relation | None = None
    """From the row between to the document."""
    far: Relation | None = None
    """From rows that are links to what they name, such as tags."""

    @property
    def table(self) -> Table:
        """Return the table whose rows are the parts."""
        return self.relation.child


@dataclass(slots=True)
class Plan:
    """What becomes of each table."""

    documents: dict[Table, list[Part]] = field(default_factory=dict)
    parts: dict[Table, list[Relation]] = field(default_factory=dict)
    titles: dict[Table, Relation] = field(default_factory=dict)
    """Translations of texts, with the way to their title in another table of translations."""
    read: set[tuple[Table, str]] = field(default_factory=set)
    """The columns that people read, and "" for each table that is joined."""
    few: set[Table] = field(default_factory=set)
    """Tables that are not joined either: few persons may see their rows, or a person left them
    out."""
    out: dict[Table, str] = field(default_factory=dict)
    """Why a table is left out, to be read after its name."""


def plan(catalog: DatabaseCatalog, tables: Sequence[Table], places: Mapping[str, Place]) -> Plan:
    """Return what becomes of each table, given those by name for which a person decided. A table
    that is left out still says who may see the rows of others."""
    wanted = {one for one in tables if places.get(one.name) == "document"}
    excluded = {one for one in tables if places.get(one.name) == "leave out"}
    return _Planner(catalog, tables, wanted, excluded).made()


class _Planner:
    def __init__(
        self,
        catalog: DatabaseCatalog,
        tables: Sequence[Table],
        wanted: set[Table],
        excluded: set[Table],
    ) -> None:
        self._catalog, self._tables, self._wanted, self._excluded = (
            catalog,
            tables,
            wanted,
            excluded,
        )
        self._plan = Plan()
        self._out = self._plan.out
        self._speaks = False

    def made(self) -> Plan:
        """Return what becomes of each table."""
        self._out |= {one: reason for one in self._tables if (reason := self._reason(one))}
        few = {one for one in self._tables if one in self._out and _for_few(one)} - self._excluded
        self._plan.few = few | self._excluded
        below = {
            one.child for table in few for one in table.children if one.share >= known.NEARLY_ALL
        } - self._wanted
        self._out |= {one: "belongs to what is for few" for one in below if one not in self._out}
        self._speaks = any(_has_prose(one) for one in self._tables if one not in self._out)
        self._leave_out_copies()
        self._find_translations()
        for one in [
            one for one in self._tables if one not in self._out and one not in self._wanted
        ]:
            self._choose_owner(one)
        self._choose_documents()
        self._leave_out_names()
        self._order()
        return self._plan

    def _reason(self, table: Table) -> str:
        """Return why a table has nothing to find; "" if it may have."""
        if table in self._excluded:
            return CHOSEN
        if table.problem:
            return f"{UNREAD}: {table.problem}"
        if not table.rows:
            return "is empty"
        if not (table.title or table.texts):
            return NO_TEXT
        if table in self._wanted:
            return ""
        if table.is_accounts:
            return "has accounts"
        return _for_few(table) or table.machine

    def _is_thing(self, table: Table) -> bool:
        """Return whether rows are called or told by something, so that others may be parts of
        them."""
        out = self._out.get(table, NO_TEXT) != NO_TEXT
        if (
            table.rows < 2
            or not table.key
            or table.is_accounts
            or table.is_label
            or out
            or self._is_brought(table)
        ):
            return False
        return bool(table.title or table.texts) or any(self._tells(one) for one in table.children)

    def _is_brought(self, table: Table) -> bool:
        """Return whether a list of names came with the application, and people look for prose."""
        return (
            self._speaks
            and table.noun[-1] in known.BROUGHT
            and table.said < known.LITTLE
            and not table.written
        )

    def _tells(self, one: Relation) -> bool:
        """Return whether several rows that say something name each row: a conversation is told by
        its messages."""
        said = one.child.prose or one.child.title or one.gives_values
        distinct = len({*one.named})
        return (
            bool(said)
            and not one.child.is_accounts
            and 2 < distinct <= (1 - known.SOME) * len(one.named)
        )

    def _find_translations(self) -> None:
        """Find texts whose titles are in another table of translations of the same row, which
        itself says nothing."""
        for table in [
            one for one in self._tables if one not in self._out and one.prose and not one.title
        ]:
            shared = {one.name for one in table.columns.values() if one.role == "locale"}
            silent = [
                one
                for one in table.parents
                if not (one.parent.title or one.parent.texts or one.type_column)
            ]
            for own, other in [(one, other) for one in silent for other in one.parent.children]:
                names, ends = other.child, zip(own.pairs, other.pairs, strict=True)
                pairs = tuple((here, there) for (here, _), (there, _) in ends)
                pairs += tuple((one, one) for one in sorted(shared & names.columns.keys()))
                titled = names.title in names.columns and not names.prose and names is not table
                titled = titled and names not in self._out
                if titled and self._catalog.is_key(names, [there for _, there in pairs]):
                    self._plan.titles[table] = Relation(table, names, pairs)
                    self._out |= {
                        names: f"is in the documents of {table.name}",
                        own.parent: NO_TEXT,
                    }

    def _choose_owner(self, table: Table) -> None:
        """Make a table a part of what its rows hang on, unless they are called by a name of their
        own."""
        ways = [
            one
            for one in table.parents
            if one.parent is not table and one.is_whole and not one.is_pointer
        ]
        ways = [one for one in ways if self._is_thing(one.parent) and not one.writes]
        if table in self._plan.titles:
            return
        if (
            table.written
            and table.noun[-1] not in known.REPLIES
            and any(one.writes for one in table.parents)
        ):
            kinds = (
                known.CONTAINERS | known.BROUGHT | known.ORGANISATIONS
            )  # a visit of a kind, at a place
            ways = [one for one in ways if one.parent.noun[-1] not in kinds]
        ways = [one for one in ways if one.parent.noun[-1] not in ("type", "class", "kind")]
        title = table.columns.get(table.title)
        named = bool(table.title) and (
            title is None or max(title.distinct, title.is_strong) >= known.HALF
        )
        named = named and not any(map(_answers, ways))
        extends = [one for one in ways if one.extends and not one.type_column]
        extends = [
            one
            for one in extends
            if one.parent.title or (one.parent.texts and not (table.title and one.parent.prose))
        ]
        large = 2 * known.MAX_NAME_CHARS
        typed = [
            one for one in ways if one.type_column and (not one.is_crowd or one.parent.rows > large)
        ]
        plain = [one for one in ways if not one.type_column and not one.is_crowd]
        full = [one for one in plain if one.share >= known.NEARLY_ALL]
        partial = [one for one in plain if one.share < known.NEARLY_ALL]
        if extends:
            found = extends[:1]
        elif named and (table.texts or table.written or not full):
            found = []
        else:
            some = partial if not named and sum(one.share for one in partial) >= known.HALF else []
            # a table that this one is called after, or that few rows share
            full.sort(key=lambda one: (not {*one.parent.noun} & {*table.noun}, -one.parent.rows))
            found = typed or full[:1] or some[: known.MANY_TOLD]
        if found:
            self._plan.parts[table] = found

    def _leave_out_copies(self) -> None:
        """Leave out tables of versions, and those that programs search in, if others have their
        texts, too; and those with one row for each of another one, whose text it holds with what
        else is said of it."""
        for table in [
            one for one in self._tables if one not in self._out and one not in self._wanted
        ]:
            others = [one for one in self._tables if one not in self._out and one is not table]
            others = [one for one in others if not is_of_copies(one)]
            said = is_of_copies(table) and _says_what_others_say(table, others)
            if said or any(map(_holds_its_parent, table.parents if table.prose else ())):
                self._out[table] = "has what is in other tables, too"
            elif is_of_copies(table) and any(_is_taken_from(table, one) for one in others):
                self._out[table] = "has what was put away, by its name"

    def _choose_documents(self) -> None:
        """Make all other tables documents, and give each its parts."""
        parts, documents = self._plan.parts, self._plan.documents
        owners = {one.parent for ways in parts.values() for one in ways}
        owners |= {
            one.parent for table in self._tables for one in table.parents if one.gives_values
        }
        roots = [one for one in self._tables if self._may_stand(one, owners)]
        for table in [
            *parts
        ]:  # a part of nothing that is a document, or far below one, stands alone
            seen, above = {table}, parts[table][0].parent
            while above in parts and above not in seen:
                seen.add(above)
                above = parts[above][0].parent
            if (above not in roots or len(seen) > 2) and table.key:
                del parts[table]
                roots.append(table)
        documents.clear()
        linked: set[Table] = set()
        for root in roots:
            found = [Part(one) for ways in parts.values() for one in ways if one.parent is root]
            for ways in parts.values():
                for one in ways:
                    ups = [
                        up
                        for up in parts.get(one.parent, ())
                        if up.parent is root and not up.type_column
                    ]
                    found += [Part(one, up=up) for up in ups]
            found += self._linked(root, linked)
            documents[root] = found
        for table in [
            one for one in linked if one in documents and not one.title and one not in self._wanted
        ]:
            del documents[table]
            self._out[table] = "is in the documents of what it is linked with"

    def _may_stand(self, table: Table, owners: set[Table]) -> bool:
        """Return whether the rows of a table may be documents."""
        if not table.key or table in self._plan.parts:
            return False
        if table not in self._out:
            return table in self._wanted or not table.is_label
        return table in owners and table not in self._wanted and self._is_thing(table)

    def _linked(self, root: Table, linked: set[Table]) -> list[Part]:
        """Return what tables of links say of the rows of a table: their tags, who took part."""
        found = []
        for own in root.children:
            link = own.child
            told = (
                link not in self._out and link.title and (link.texts or link.written)
            )  # a document itself
            is_link = (
                len({one.column for one in link.parents}) > 1
                and len(own.pairs) == len(root.key)
                and link.rows
            )
            if (
                not is_link
                or link.is_accounts
                or link.prose
                or link in {*self._plan.parts, *self._excluded}
                or told
            ):
                continue
            for far in [one for one in link.parents if one.parent.is_value] or link.parents:
                other = far.parent
                itself = (
                    far.column == own.column
                    or other in (root, link)
                    or far.is_pointer
                    or not other.rows
                )
                if itself or other.is_accounts or other in self._excluded:
                    continue
                if other.machine and "names" not in other.machine:
                    continue
                if other.is_value or (other.title and (other.is_label or other.rows <= root.rows)):
                    linked |= {other} if other.is_value else set()
                    found.append(Part(own, far=far))
        return found

    def _leave_out_names(self) -> None:
        """Leave out names that hardly say more, unless they were written one by one; and what
        programs repeat."""
        for table, parts in [*self._plan.documents.items()]:
            own = any(not one.far and one.table.chars * 10 >= table.chars > 0 for one in parts)
            own = own or any(one.far and one.relation.gives_values for one in parts)
            few = table.is_label or table.rows < known.MIN_ROWS or table.repeats
            few = few or (table.told < 2 and not table.written and not table.is_people)
            busy = table.written or table.is_people or table.is_used
            idle = self._speaks and table.told <= known.MANY_TOLD and not busy
            nothing = not (table.chars or own) and not any(
                one.table.prose or one.table.title for one in parts
            )
            alone = (
                table.said < known.LITTLE and not own and (few or self._is_brought(table) or idle)
            )
            if table not in self._wanted and (nothing or alone):
                self._out[table] = "has names alone"
                del self._plan.documents[table]

    def _order(self) -> None:
        """Order documents by their text, the most first, and leave out parts beyond the largest."""

        def value(table: Table) -> float:
            return table.chars + sum(
                one.table.chars for one in self._plan.documents[table] if not one.far
            )

        ordered = sorted(
            self._plan.documents.items(), key=lambda item: value(item[0]), reverse=True
        )
        self._plan.documents.clear()
        for table, parts in ordered:
            unique = {
                (
                    one.table,
                    one.relation.column,
                    one.far and one.far.column,
                    one.relation.where,
                ): one
                for one in parts
            }
            self._plan.documents[table] = [*unique.values()][: known.MAX_TEXTS]


def _has_prose(table: Table) -> bool:
    """Return whether a table has some texts of several sentences."""
    texts = [text for name in table.prose for text in table.columns[name].texts]
    sizes = [
        len(text.encode("utf-8", "surrogatepass")) for text in texts
    ]  # a Chinese sign says more than a letter
    return sum(size >= known.PROSE for size in sizes) >= known.MIN_ROWS


def _for_few(table: Table) -> str:
    """Return why rows of a table are for few persons, by what they name; "" if nothing says so."""
    named, columns = {*table.noun}, {name: {*words(name)} for name in table.columns}
    persons = {one.column for one in table.parents if one.parent.is_people}
    others = [one for one in table.parents if not one.parent.is_people]
    sure = is_any(
        table.noun, known.HIDE | known.DIRECT | {"moderation"}
    ) or known.PRIVATE.fullmatch("".join(table.noun))
    if sure or table.noun[0].startswith("deleted"):
        return "is for few, by its name"
    told = len(persons) > 1 or any(one.type_column or one.parent.texts for one in others)
    if known.REPORTS & {table.noun[-1]} and told:
        return "has reports to moderators"
    on_others = any(
        one.parent.is_accounts and not known.WRITERS & columns[one.column] for one in table.parents
    )
    notes = (known.REMARKS - {"comment"}) & {
        table.noun[-1]
    } and on_others  # a comment names its writer in many ways
    if notes and all(one.parent.rows <= known.MAX_CHOICES for one in others):
        return "has notes on persons"
    rooms = known.ROOMS
    sent = any(
        known.RECEIVERS & said or ("to" in said and name in persons)
        for name, said in columns.items()
    )
    joined = any(
        {"participant", *({"member"} if "conversation" in room.noun else ())} & {*one.child.noun}
        for room in [table, *(one.parent for one in others if rooms & {*one.parent.noun})]
        for one in room.children
    )
    # of a message that names but a person who is not its writer, this is who gets it
    alone = "message" in named and all(one.parent.is_label and one.parent.title for one in others)
    linked = [one.child for one in table.children if not (one.child.prose or one.child.title)]
    joined = joined or any(
        {*one.noun} <= named | known.PERSONS and known.PERSONS & {*one.noun} for one in linked
    )
    sent = sent or joined or (alone and any(not known.WRITERS & columns[name] for name in persons))
    return "has messages between persons" if (rooms | known.REPLIES) & named and sent else ""


def _says_what_others_say(table: Table, others: Sequence[Table]) -> bool:
    """Return whether others have the ends of the longest sentences, too: what a copy begins with
    may be a name."""
    texts = [text for name in table.prose for text in table.columns[name].texts[: known.CROWD]]
    runs = [max(SENTENCE.findall(text), key=len, default="") for text in texts]
    ends = [squeezed(run)[-known.CROWD :] for run in runs if len(run) > 1.5 * known.CROWD]
    said = "\n".join(
        squeezed(text) for one in others for name in one.prose for text in one.columns[name].texts
    )
    return len(ends) >= known.MIN_ROWS and 3 * sum(end in said for end in ends) >= len(ends)


def _holds_its_parent(one: Relation) -> bool:
    """Return whether rows hold the text of the row that each of them names alone."""
    if not one.parent.prose or one.parent is one.child or len({*one.named}) < len(one.named):
        return False
    said = dict(one.parent.rows_of(one.pairs[0][1], one.parent.prose[0]))
    rows = [row for row in one.child.rows_of(one.column, *one.child.prose) if row[0] in said]
    begins = [
        (squeezed(str(said[key]))[: known.CROWD], squeezed(" ".join(map(str, texts))))
        for key, *texts in rows
    ]
    held = [mine in text for mine, text in begins if len(mine) >= known.CROWD]
    return len(held) >= known.MIN_ROWS and sum(held) >= known.HALF * len(begins)


def _is_taken_from(table: Table, other: Table) -> bool:
    """Return whether rows of a table may once have been those of another: both have a title of one
    name."""
    titles = [one.named[one.title] for one in (table, other) if one.title in one.columns]
    return len(titles) == 2 and titles[0] == titles[1] and table.rows < other.rows


def is_of_copies(table: Table) -> bool:
    """Return whether a table is called like one of versions, or of texts for a search."""
    own_words = map(singular, words(table.own_name))
    # `page_versions`; `page_fts`
    endings = (*known.COPIES, "fts")
    return any(word.endswith(endings) for word in (*table.noun, *own_words))


def squeezed(text: str) -> str:
    """Return the letters of a text."""
    return re.sub(r"[\W\d_]", "", text).lower()


def _answers(one: Relation) -> bool:
    """Return whether rows answer what they name: they are called replies, or have the title of
    it."""
    if one.share < known.NEARLY_ALL or not one.parent.title or one.type_column or one.is_crowd:
        return False
    if one.child.noun[-1] in known.REPLIES:
        return True
    title, above = one.child.columns.get(one.child.title), one.parent.columns.get(one.parent.title)
    if title is None or above is None:
        return False
    names = dict(zip(one.parent.columns[one.pairs[0][1]].values, above.values, strict=True))
    pairs = [
        (said, names[key])
        for key, said in one.child.rows_of(one.column, title.name)
        if key in names
    ]
    same = [squeezed(str(name)) in squeezed(str(said)) for said, name in pairs if said and name]
    return len(same) >= known.MIN_ROWS and 2 * sum(same) >= len(same)


def identifier(name: str, otherwise: str) -> str:
    """Return a name as one that joins and parts may have; `otherwise` stands first if it begins
    with no letter."""
    plain = re.sub(r"\W+", "_", "_".join(words(name)), flags=re.ASCII).strip("_")
    return plain if plain[:1].isalpha() else f"{otherwise}_{plain}".strip("_")
