"""What becomes of each table: a document, a part or a label of another one, or nothing.

What has a name of its own, or was written one by one, is a document; what hangs on one is a part of
it; a small list of names that others carry is a label. All other tables are left out, with the
reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.columns import SENTENCE
from rag_index.first_run.schema.proposed import CHOSEN, UNREAD
from rag_index.first_run.schema.tables import Relation
from rag_index.first_run.schema.words import is_any, singular, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rag_index.first_run.schema.candidates import Place
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.tables import Table

NO_TEXT = "has no text of its own"
"""The reason for a table without texts. Such a table may still become a document, by its parts."""


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
    return _Planner(catalog, tables, places).made()


class _Planner:
    def __init__(
        self, catalog: DatabaseCatalog, tables: Sequence[Table], places: Mapping[str, Place]
    ) -> None:
        self._catalog = catalog
        self._tables = tables
        self._wanted = {one for one in tables if places.get(one.name) == "document"}
        self._excluded = {one for one in tables if places.get(one.name) == "leave out"}
        self._plan = Plan()
        self._out = self._plan.out
        self._speaks = False
        """Whether the database has prose, so that people do not look for names alone."""

    def made(self) -> Plan:
        """Return what becomes of each table."""
        self._leave_out(self._tables, self._reason)
        self._leave_out_few()
        self._speaks = any(map(_has_prose, self._kept))
        self._leave_out(self._undecided, self._copied)
        for table in self._kept:
            if table.prose and not table.title:
                self._find_translations(table)
        for table in self._undecided:
            owners = self._owners(table)
            if owners:
                self._plan.parts[table] = owners
        self._choose_documents()
        self._leave_out_names()
        self._order()
        return self._plan

    @property
    def _kept(self) -> list[Table]:
        return [one for one in self._tables if one not in self._out]

    @property
    def _undecided(self) -> list[Table]:
        """Return the tables that are not left out and that no person wants as documents."""
        return [one for one in self._kept if one not in self._wanted]

    # --- What is left out ---

    def _leave_out(self, tables: Iterable[Table], reason_of: Callable[[Table], str]) -> None:
        for table in tables:
            reason = reason_of(table)
            if reason:
                self._out[table] = reason

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

    def _leave_out_few(self) -> None:
        """Leave out what belongs to rows for few persons, and note all tables that are not even
        joined."""
        few = {one for one in self._out if _for_few(one)} - self._excluded
        self._plan.few = few | self._excluded
        for relation in chain.from_iterable(table.children for table in few):
            # the files of private messages
            if relation.share >= known.NEARLY_ALL and relation.child not in self._wanted:
                self._out.setdefault(relation.child, "belongs to what is for few")

    def _copied(self, table: Table) -> str:
        """Return why the rows of a table are copies of others; "" if they are not."""
        repeats = "has what is in other tables, too"
        if any(map(_holds_its_parent, table.parents)):
            # a table for searches: the text of each article with the names of its tags
            return repeats
        if not is_of_copies(table):
            return ""
        others = [one for one in self._kept if one is not table and not is_of_copies(one)]
        if _says_what_others_say(table, others):
            # `page_versions` beside `pages`
            return repeats
        if any(_is_taken_from(table, one) for one in others):
            # `article_archive`: other rows, with the columns of `articles`
            return "has what was put away, by its name"
        return ""

    # --- Parts ---

    def _is_thing(self, table: Table) -> bool:
        """Return whether rows are called or told by something, so that others may be parts of
        them."""
        is_out = self._out.get(table, NO_TEXT) != NO_TEXT
        if is_out or table.rows < 2 or not table.key:
            return False
        if table.is_accounts or table.is_label or self._is_brought(table):
            return False
        if table.title or table.texts:
            return True
        return any(map(self._tells, table.children))

    def _is_brought(self, table: Table) -> bool:
        """Return whether a list of names came with the application, and people look for prose."""
        if not self._speaks or table.written:
            return False
        # `countries`
        is_list = table.noun[-1] in known.BROUGHT
        return is_list and table.sentence_chars < known.LITTLE

    def _tells(self, one: Relation) -> bool:
        """Return whether several rows that say something name each row: a conversation is told by
        its messages."""
        child = one.child
        says = child.prose or child.title or one.gives_values
        if not says or child.is_accounts:
            return False
        distinct = len({*one.named})
        return 2 < distinct <= (1 - known.SOME) * len(one.named)

    def _find_translations(self, table: Table) -> None:
        """Find the titles of texts in another table of translations of the same row, which itself
        says nothing."""
        for own in table.parents:
            above = own.parent
            if above.title or above.texts or own.type_column:
                continue
            for other in above.children:
                # `body_translations` and `title_translations` of `pages`, both with a `locale`
                self._add_titles(own, other)

    def _add_titles(self, own: Relation, other: Relation) -> None:
        """Note that the rows of `own` have the titles of `other`, if each finds one at most."""
        table, names = own.child, other.child
        pairs = [(ours[0], theirs[0]) for ours, theirs in zip(own.pairs, other.pairs, strict=True)]
        if names is table or names in self._out:
            return
        if names.prose or names.title not in names.columns:
            return
        for name in sorted(table.columns.keys() & names.columns.keys()):
            if table.columns[name].role == "locale":
                pairs.append((name, name))
        if self._catalog.is_key(names, [there for _, there in pairs]):
            self._plan.titles[table] = Relation(table, names, tuple(pairs))
            self._out[names] = f"is in the documents of {table.name}"
            self._out[own.parent] = NO_TEXT

    def _owners(self, table: Table) -> list[Relation]:
        """Return the ways to what the rows of a table belong to; [] if they are called by a name of
        their own."""
        if table in self._plan.titles:
            return []
        ways = [one for one in table.parents if self._may_own(one)]
        is_report = table.written and table.noun[-1] not in known.REPLIES
        if is_report and any(one.writes for one in table.parents):
            # a visit of a kind, at a place
            kinds = known.CONTAINERS | known.BROUGHT | known.ORGANISATIONS
            ways = [one for one in ways if one.parent.noun[-1] not in kinds]
        for one in ways:
            if _extends_text(one):
                return [one]
        typed = [one for one in ways if one.type_column and _is_among_many(one)]
        plain = [one for one in ways if not (one.type_column or one.is_crowd)]
        full = [one for one in plain if one.share >= known.NEARLY_ALL]
        is_document = table.texts or table.written or not full
        if is_document and _has_own_name(table, ways):
            return []
        if typed:
            # comments on articles and on photos: `subject_type`, `subject_id`
            return typed
        if full:
            return [min(full, key=_owner_rank)]
        # comments on articles or on photos, with a column for each
        is_owned = sum(one.share for one in plain) >= known.HALF
        return plain[: known.MANY_TOLD] if is_owned else []

    def _may_own(self, one: Relation) -> bool:
        """Return whether rows may be parts of what they name."""
        parent = one.parent
        if parent is one.child or not one.is_whole or one.is_pointer or one.writes:
            return False
        is_kind = parent.noun[-1] in ("type", "class", "kind")
        return not is_kind and self._is_thing(parent)

    # --- Documents ---

    def _choose_documents(self) -> None:
        """Make all other tables documents, and give each its parts."""
        documents = self._plan.documents
        roots = [one for one in self._tables if self._may_stand(one)]
        self._free_parts(roots)
        for root in roots:
            documents[root] = self._parts_of(root)
        for part in [*chain.from_iterable(documents.values())]:
            value = part.far and part.far.parent
            if not value or not value.is_value or value in self._wanted:
                continue
            # the values of fields say something only beside the field
            if documents.pop(value, None) is not None:
                self._out[value] = "is in the documents of what it is linked with"

    def _may_stand(self, table: Table) -> bool:
        """Return whether the rows of a table may be documents."""
        parts = self._plan.parts
        if not table.key or table in parts:
            return False
        if table not in self._out:
            return table in self._wanted or not table.is_label
        if table in self._wanted or not self._is_thing(table):
            return False
        # a conversation without a name has messages
        return any(one.gives_values or one in parts.get(one.child, ()) for one in table.children)

    def _free_parts(self, roots: list[Table]) -> None:
        """Move parts of nothing that is a document, or far below one, to the documents."""
        parts = self._plan.parts
        for table in [*parts]:
            seen = {table}
            above = parts[table][0].parent
            while above in parts and above not in seen:
                seen.add(above)
                above = parts[above][0].parent
            # the votes on a comment on a post of a topic are three steps away
            is_far = above not in roots or len(seen) > 2
            if is_far and table.key:
                del parts[table]
                roots.append(table)

    def _parts_of(self, root: Table) -> list[Part]:
        """Return the rows that belong to those of a table: its own, those below them, and what it
        is linked with."""
        ways = [*chain.from_iterable(self._plan.parts.values())]
        found = [Part(one) for one in ways if one.parent is root]
        for one in ways:
            # comments on the posts of a topic
            for up in self._plan.parts.get(one.parent, ()):
                if up.parent is root and not up.type_column:
                    found.append(Part(one, up=up))
        for own in filter(self._is_link, root.children):
            values = [far for far in own.child.parents if far.parent.is_value]
            for far in values or own.child.parents:
                if self._names_tag(own, far):
                    found.append(Part(own, far=far))
        return found

    def _is_link(self, own: Relation) -> bool:
        """Return whether the child links rows with others, and is nothing itself: `article_tags`."""
        link = own.child
        columns = {one.column for one in link.parents}
        if len(columns) < 2 or len(own.pairs) != len(own.parent.key) or not link.rows:
            return False
        if link.is_accounts or link.prose or link in self._excluded or link in self._plan.parts:
            return False
        # a booking with a title and its time is a document
        is_document = link.title and (link.texts or link.written)
        return link in self._out or not is_document

    def _names_tag(self, own: Relation, far: Relation) -> bool:
        """Return whether a table of links names at its far end what says something of each row: its
        tags, who took part."""
        root, other = own.parent, far.parent
        if other in (root, own.child) or far.column == own.column:
            return False
        if far.is_pointer or not other.rows or other.is_accounts or other in self._excluded:
            return False
        if other.machine and "names" not in other.machine:
            return False
        if other.is_value:
            return True
        return bool(other.title) and (other.is_label or other.rows <= root.rows)

    def _leave_out_names(self) -> None:
        """Leave out names that hardly say more, unless they were written one by one; and what
        programs repeat."""
        documents = self._plan.documents
        for table, parts in [*documents.items()]:
            if table in self._wanted or any(_tells_much(one, table) for one in parts):
                continue
            is_silent = not (
                table.chars or any(one.table.prose or one.table.title for one in parts)
            )
            if is_silent or (table.sentence_chars < known.LITTLE and self._is_list(table)):
                self._out[table] = "has names alone"
                del documents[table]

    def _is_list(self, table: Table) -> bool:
        """Return whether rows with little prose are a list that nobody looks into."""
        if table.is_label or table.rows < known.MIN_ROWS:
            return True
        if table.repeats or self._is_brought(table):
            return True
        if table.written or table.is_people:
            return False
        if table.told < 2:
            return True
        return self._speaks and table.told <= known.MANY_TOLD and not table.is_used

    def _order(self) -> None:
        """Order documents by their text, the most first, and leave out parts beyond the largest."""
        documents = self._plan.documents
        self._plan.documents = {}
        for table in sorted(documents, key=lambda one: _chars(one, documents[one]), reverse=True):
            unique = {}
            for part in documents[table]:
                far = part.far and part.far.column
                unique[part.table, part.relation.column, far, part.relation.where] = part
            self._plan.documents[table] = [*unique.values()][: known.MAX_TEXTS]


# --- Owners and parts ---


def _has_own_name(table: Table, ways: Sequence[Relation]) -> bool:
    """Return whether rows have names that differ, and that are not those of what they answer."""
    if not table.title or any(map(_answers, ways)):
        return False
    title = table.columns.get(table.title)
    # `{first_name} {last_name}` is no column
    return title is None or max(title.distinct, title.is_strong) >= known.HALF


def _extends_text(one: Relation) -> bool:
    """Return whether each row says more of one row of the parent."""
    parent = one.parent
    if not one.extends or one.type_column:
        return False
    if parent.title:
        return True
    # a row with a title is no part of prose without one
    is_above = one.child.title and parent.prose
    return bool(parent.texts) and not is_above


def _is_among_many(one: Relation) -> bool:
    """Return whether the parent is more than a container of its rows."""
    return not one.is_crowd or one.parent.rows > 2 * known.MAX_NAME_CHARS


def _owner_rank(one: Relation) -> tuple[bool, int]:
    """Return the smaller the likelier: what the child is called after, or what few rows share."""
    shared = {*one.parent.noun} & {*one.child.noun}
    return not shared, -one.parent.rows


def _tells_much(part: Part, table: Table) -> bool:
    """Return whether parts add so much to the rows of a table that these are worth finding."""
    if part.far:
        return part.relation.gives_values
    return part.table.chars * 10 >= table.chars > 0


def _chars(table: Table, parts: Sequence[Part]) -> float:
    """Return about how many characters people read in documents and what belongs to them alone."""
    own = [one.table.chars for one in parts if not one.far]
    return table.chars + sum(own)


def _prose(table: Table, most: int | None = None) -> list[str]:
    """Return the texts of the columns with prose, at most so many of each."""
    texts: list[str] = []
    for name in table.prose:
        texts += table.columns[name].texts[:most]
    return texts


def _has_prose(table: Table) -> bool:
    """Return whether a table has some texts of several sentences."""
    count = 0
    for text in _prose(table):
        # in bytes: a Chinese sign says more than a letter
        size = len(text.encode("utf-8", "surrogatepass"))
        count += size >= known.PROSE
    return count >= known.MIN_ROWS


# --- Rows for few persons ---


def _for_few(table: Table) -> str:
    """Return why rows of a table are for few persons, by what they name; "" if nothing says so."""
    kind = table.noun[-1]
    is_private = known.PRIVATE.fullmatch("".join(table.noun))
    if is_private or is_any(table.noun, known.HIDE | known.DIRECT | {"moderation"}):
        return "is for few, by its name"
    if table.noun[0].startswith("deleted"):
        return "is for few, by its name"
    others = [one for one in table.parents if not one.parent.is_people]
    if kind in known.REPORTS and _accuses(table, others):
        return "has reports to moderators"
    if kind in known.REMARKS - {"comment"} and _is_on_accounts(table, others):
        # a comment names its writer in many ways
        return "has notes on persons"
    if (known.ROOMS | known.REPLIES) & {*table.noun} and _is_sent(table, others):
        return "has messages between persons"
    return ""


def _accuses(table: Table, others: Sequence[Relation]) -> bool:
    """Return whether reports name what was reported: a second person, or a text."""
    persons = {one.column for one in table.parents if one.parent.is_people}
    return len(persons) > 1 or any(one.type_column or one.parent.texts for one in others)


def _is_on_accounts(table: Table, others: Sequence[Relation]) -> bool:
    """Return whether remarks name an account that did not write them, and nothing else but
    labels."""
    if any(one.parent.rows > known.MAX_CHOICES for one in others):
        return False
    accounts = [one for one in table.parents if one.parent.is_accounts]
    return not all(known.WRITERS & {*words(one.column)} for one in accounts)


def _is_sent(table: Table, others: Sequence[Relation]) -> bool:
    """Return whether messages go to some persons only."""
    persons = {one.column for one in table.parents if one.parent.is_people}
    for name in table.columns:
        named = {*words(name)}
        # `to_user_id`, but not `visible_to_customer`
        is_called = known.PERSONS & named and named <= known.PERSONS | known.KEY_WORDS | {"to"}
        is_person = name in persons or is_called
        # `recipient_id`, or `to_user`
        if known.RECEIVERS & named or ("to" in named and is_person):
            return True
    rooms = [one.parent for one in others if known.ROOMS & {*one.parent.noun}]
    if any(map(_has_participants, [table, *rooms])):
        return True
    for relation in table.children:
        link = relation.child
        noun = {*link.noun}
        # `message_user` says who gets a message
        is_called = known.PERSONS & noun and noun <= {*table.noun} | known.PERSONS
        if is_called and not (link.prose or link.title):
            return True
    if "message" not in table.noun:
        return False
    if not all(one.parent.is_label and one.parent.title for one in others):
        return False
    # of a message that names but a person who is not its writer, this is who gets it
    return not all(known.WRITERS & {*words(name)} for name in persons)


def _has_participants(room: Table) -> bool:
    """Return whether rows list the persons who take part: anybody may be a member of a forum, but
    not of a conversation."""
    called = {"participant"}
    if "conversation" in room.noun:
        called.add("member")
    return any(called & {*one.child.noun} for one in room.children)


# --- Copies ---


def _says_what_others_say(table: Table, others: Sequence[Table]) -> bool:
    """Return whether others have the ends of the longest sentences, too: what a copy begins with
    may be a name."""
    ends = []
    for text in _prose(table, known.CROWD):
        run = max(SENTENCE.findall(text), key=len, default="")
        if len(run) > 1.5 * known.CROWD:
            ends.append(squeezed(run)[-known.CROWD :])
    if len(ends) < known.MIN_ROWS:
        return False
    texts = chain.from_iterable(map(_prose, others))
    text = "\n".join(map(squeezed, texts))
    return 3 * sum(end in text for end in ends) >= len(ends)


def _holds_its_parent(one: Relation) -> bool:
    """Return whether rows hold the text of the row that each of them names alone."""
    child, parent = one.child, one.parent
    if parent is child or not child.prose or not parent.prose:
        return False
    if len({*one.named}) < len(one.named):
        return False
    texts = dict(parent.rows_of(one.pairs[0][1], parent.prose[0]))
    rows = [row for row in child.rows_of(one.column, *child.prose) if row[0] in texts]
    held = []
    for key, *own in rows:
        begin = squeezed(str(texts[key]))[: known.CROWD]
        # a shorter text may be there by chance
        if len(begin) >= known.CROWD:
            held.append(begin in squeezed(" ".join(map(str, own))))
    return len(held) >= known.MIN_ROWS and sum(held) >= known.HALF * len(rows)


def _is_taken_from(table: Table, other: Table) -> bool:
    """Return whether rows of a table may once have been those of another: both have a title of one
    name."""
    if table.title not in table.columns or other.title not in other.columns:
        return False
    is_alike = table.named[table.title] == other.named[other.title]
    return is_alike and table.rows < other.rows


def is_of_copies(table: Table) -> bool:
    """Return whether a table is called like one of versions, or of texts for a search."""
    called = [*table.noun]
    called += map(singular, words(table.own_name))
    # `page_versions`; `page_fts`
    endings = (*known.COPIES, "fts")
    return any(word.endswith(endings) for word in called)


def squeezed(text: str) -> str:
    """Return the letters of a text."""
    return re.sub(r"[\W\d_]", "", text).lower()


def _answers(one: Relation) -> bool:
    """Return whether rows answer what they name: they are called replies, or have the title of
    it."""
    child, parent = one.child, one.parent
    if one.share < known.NEARLY_ALL or not parent.title or one.type_column or one.is_crowd:
        return False
    if child.noun[-1] in known.REPLIES:
        return True
    if child.title not in child.columns or parent.title not in parent.columns:
        return False
    names = dict(parent.rows_of(one.pairs[0][1], parent.title))
    same = []
    for key, title in child.rows_of(one.column, child.title):
        name = names.get(key)
        # `Re: The pump stopped`
        if title and name:
            same.append(squeezed(str(name)) in squeezed(str(title)))
    return len(same) >= known.MIN_ROWS and 2 * sum(same) >= len(same)


def identifier(name: str, otherwise: str) -> str:
    """Return a name as one that joins and parts may have; `otherwise` stands first if it begins
    with no letter."""
    joined = "_".join(words(name))
    plain = re.sub(r"\W+", "_", joined, flags=re.ASCII).strip("_")
    if plain[:1].isalpha():
        return plain
    return f"{otherwise}_{plain}".strip("_")
