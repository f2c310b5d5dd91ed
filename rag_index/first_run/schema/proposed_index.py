"""The settings of one proposed index: what its text, title, parts, joins and payload are, and why."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from rag_index.core.documents.batches import RESERVED_KEY
from rag_index.core.documents.text_languages import find_languages, language_of
from rag_index.core.settings.index import NO_LANGUAGE
from rag_index.first_run.schema import vocabulary as vocab
from rag_index.first_run.schema.catalog import SAMPLED_ROWS, DatabaseTable
from rag_index.first_run.schema.columns import FEW, words
from rag_index.first_run.schema.hiding import answers_none, hides
from rag_index.first_run.schema.roles import (
    MAX_LABEL_CHARS,
    Below,
    TableRoles,
    text_parents,
    wanted_texts,
)
from rag_index.first_run.schema.subjects import MAX_MINUTES, NOTHING, Condition, Relation, Subject
from rag_index.first_run.schema.visibility import listed, unclear_codes

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence


MAX_PAYLOAD = 12
MAX_JOINS = 8
MAX_PARTS = 8
MAX_KINDS = 30
"""At most this many one-to-one detail tables (one for each kind of page, say) become parts."""
MAX_CONTAINERS = 25
"""Larger tables are documents, and do not only describe what others refer to, as projects and forums do."""
MIN_DESCRIPTION = 80
"""A container whose texts have at least this many characters on average is a document too."""
MIN_THING = 15
"""The same, if its rows have a title and its name is not that of a kind or a state, as `visit_type` is."""
MAX_BROUGHT = 100
"""Names that came with the application, all in one moment, are at most this many: more are an inventory."""
NAMES_ALONE = 1.0
"""The score of rows with names and codes that hardly say more."""
MIN_ROWS = 3
MIN_ALONE = 120
"""Texts of at least this many characters are indexed even if their table has fewer rows than `MIN_ROWS`."""
MIN_CHILDREN = 3
"""A table that at least this many others refer to is a container, such as a project."""
VALUES = frozenset(["prose", "short", "code", "choice", "other"])
"""The roles of a column with the value of a field that another table names."""
MIN_CONTAINER_SHARE = 2
"""A table whose rows contain at least this many rows of another is a container, such as a forum."""
ORDER = (
    "name", "table", "schema", "on", "key", "newest", "where", "order_by", "title", "text", "inline", "format",
    "payload", "language", "language_column", "joins", "parts",
)  # fmt: skip
"""The order of keys in an index or a part."""


@dataclass(slots=True)
class ProposedIndex:
    """The settings of an index, with the reason for each of them."""

    name: str
    settings: dict[str, Any]
    reasons: dict[str, str]
    """Why a key has its value, by the key; of conditions, by their SQL."""
    tables: list[str]
    hidden: list[str]
    """Conditions that leave rows out, a sentence each."""
    unclear: list[str]
    """Numbers that may say who may see a row, a sentence each."""
    score: float
    age: str
    """The column whose greatest values the newest rows have."""
    changed: str
    """The column with the time of a row's last change; "" if none has it for all rows."""


@dataclass(slots=True, eq=False)
class _Rows:
    """Rows that are documents or parts: their text, what is joined with them, and all other settings as `keys`."""

    subject: Subject
    place: Callable[[DatabaseTable], dict[str, str]]
    """Returns the keys that name a table."""
    taken: set[str]
    """The names that no join may have."""
    tables: list[str] = field(default_factory=list)
    joins: dict[str, dict[str, Any]] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    format: dict[str, str] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    """Texts from which the languages are found."""
    reasons: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)

    def read(self, subject: Subject, columns: Sequence[str], through: str = "") -> list[str]:
        """Note how columns are written, and return what the settings call them: `through` is a join."""
        names = [f"{through}.{column}" if through else column for column in columns]
        for name, column in zip(names, columns, strict=True):
            profile = subject.profiles[column]
            self.samples += profile.texts[:30]
            self.format |= {name: profile.form} if profile.form != "plain" else {}
        return names

    def join(
        self, wanted: str, relation: Relation, through: str = "", *, required: bool = True, way: Sequence[Relation] = ()
    ) -> str:
        """Join the row that a relation names, by its own columns or those of the join `through`, and return the name.

        It is on a `way` of relations, which leads to what hides the row anyway.
        """
        dot, prefix = f"{through}." if through else "", relation.prefix
        on = {f"{prefix}{{{there}}}" if prefix else there: f"{dot}{here}" for here, there in relation.pairs}
        found = {"on": on["id"] if [*on] == ["id"] else on}
        above = relation.parent is relation.child  # whose name is shown, if it is not hidden
        hidden = self.hide(relation.parent, way) if required or above else {}
        return self._add(wanted, relation.parent, found | hidden | ({"required": True} if required else {}))

    def join_all(self, relations: Sequence[Relation], way: Sequence[Relation]) -> str:
        """Join the rows that these relations of a way name, each from the one before; return the last name."""
        through = ""
        for relation in relations:
            through = self.join(relation.parent.name, relation, through, way=way)
        return through

    def join_back(self, relation: Relation, *conditions: Condition) -> str:
        """Join the only row of a table that names the row of this one and meets conditions, and return the name."""
        child = relation.child
        return self._add(child.name, child, {"on": dict(relation.pairs)} | self.hide(child, [relation], conditions))

    def _add(self, wanted: str, subject: Subject, join: dict[str, Any]) -> str:
        name = free_name(_identifier(wanted, "join"), self.taken.union(self.joins))
        self.joins[name] = self.place(subject) | join
        self.tables.append(subject.full_name)
        return name

    def hide(self, subject: Subject, way: Sequence[Relation], more: Sequence[Condition] = ()) -> dict[str, str]:
        """Return the `where` of a table: its conditions and `more`, and which of its rows the relations of a way mean.

        What these relations name hides the rows that name it anyway, and rows with one owner have no other.
        """
        on_way = [one for one in way if one.child is subject]
        known = [one.columns for one in on_way]
        others = [one.relation for one in subject.conditions if one.relation is not None]
        known += [one.columns for one in others if any(mine.excludes(one) for mine in on_way)]
        found = [one for one in subject.conditions if one.relation is None or one.relation.columns not in known]
        told = [one for one in (*found, *more) if one.reason]
        where = " AND ".join(filter(None, [one.type_sql for one in on_way] + [one.sql for one in (*found, *more)]))
        self.hidden += [f"{subject.full_name}: {one.reason}" for one in told]
        self.reasons[where] = "; ".join(one.reason for one in told)
        return {"where": where} if where else {}

    def settings(self) -> dict[str, Any]:
        """Return all that is not empty."""
        made = {**self.place(self.subject), "text": self.text, "format": self.format, "joins": self.joins, **self.keys}
        return {key: made[key] for key in ORDER if made.get(key) or key in made.keys() & {"payload"}}


class IndexMaker:
    """Makes the settings of one index."""

    def __init__(self, subject: Subject, roles: TableRoles) -> None:
        self._subject = subject
        self._roles = roles
        self._root = roles.root.get(subject)
        self._above = subject if self._root is None else self._root.parent
        """What the documents are translations of, if they are any."""
        self._attributes = [one for table in dict.fromkeys([subject, self._above]) for one in table.attributes]
        self._rows = _Rows(subject, self._place, {*subject.columns}, [subject.full_name])
        self._payload: list[str] = []
        self._required: list[Relation] = []
        """The relations of the joins without which a row is no document."""
        self._prose = subject.text_length
        self._labels = 0
        self._newest = subject.version or ""
        """The column whose greatest value is the document; "" if each row is one."""
        self._key = [name for name in subject.key if name != self._newest]
        if self._newest:
            reason = f"{self._newest} numbers the versions of a row: the newest alone is shown"
            self._rows.reasons["newest"] = reason

    def made(self) -> ProposedIndex | None:
        """Return the index; None if there is nothing to read."""
        subject, rows = self._subject, self._rows
        title, root = subject.title, ""
        rows.read(subject, subject.title_columns)
        filled = [name for name in subject.prose if subject.profiles[name].filled or subject.rows > SAMPLED_ROWS]
        rows.text += rows.read(subject, filled)
        if self._root is not None:
            root = self._add_join(self._root, required=True)
            for columns in ([*self._above.prose, *self._above.codes[:3]], self._above.title_columns):
                rows.text += rows.read(self._above, columns, root)
            self._prose += self._above.text_length
        title = title or self._title_of_others()
        self._add_text_of_others()
        parts = self._parts()
        for relation in sorted(subject.relations, key=lambda one: one.parent.is_login):
            self._add_label(relation)
        for relation in self._above.relations if root else ():
            self._add_label(relation, root)
        rows.text += rows.read(subject, [name for name in subject.codes if name not in rows.text][:3])
        if not (title or rows.text or parts):
            return None
        self._complete(title, parts)
        times = self._times(0.9) if subject.columns[self._key[0]].kind != "number" else []
        every = [rows, *parts]
        unclear = [sentence for one in every for sentence in unclear_codes(one.subject)]
        return ProposedIndex(
            name="-".join(self._above.called),
            settings=rows.settings(),
            reasons={key: reason for one in every for key, reason in one.reasons.items()},
            tables=[table for one in every for table in one.tables],
            hidden=list(dict.fromkeys(sentence for one in every for sentence in one.hidden)),
            unclear=list(dict.fromkeys(unclear)),
            score=max(self._score(title, parts), NAMES_ALONE * subject.is_thing),
            # by which the newest rows are found: a number as key, else a time
            age=[*_with_word(times, vocab.CREATED | vocab.CHANGED), *times, *self._key][0],
            changed="" if self._newest else next(iter(_with_word(self._times(1), vocab.CHANGED)), ""),
        )

    def _times(self, least: float) -> list[str]:
        """Return the columns with times of at least a share of the rows."""
        return [p.name for p in self._subject.profiles.values() if p.role == "time" and p.filled >= least]

    def _score(self, title: str | None, parts: Sequence[_Rows]) -> float:
        """Return how likely people look for these documents for their texts; below 1 if they do not."""
        subject, text = self._subject, self._rows.text
        own = [part for part in parts if not part.keys["inline"]]
        records = self._roles.records_of(subject)
        if not (self._prose or own or records):
            told = subject.codes or len(text) > 1
            referred = subject.is_value or (
                not subject.is_sold and any(not one.type_column for one in subject.children)
            )
            brought = subject.minutes and subject.is_installed and subject.rows <= MAX_BROUGHT
            return NAMES_ALONE if title and subject.rows > 12 and told and not (referred or brought) else 0.5
        if subject.pair or not (title or parts or wanted_texts(subject, subject.prose)):
            return 0.0
        prose = self._prose + 40 * len([*own, *records])
        written = 1 if subject.minutes > MAX_MINUTES and not subject.is_label else MIN_THING
        described = written if title and not {*subject.noun} & vocab.KINDS else MIN_DESCRIPTION
        if subject.rows <= MAX_CONTAINERS and not own and prose < described and subject.children:
            return 0.0
        if subject.rows < MIN_ROWS and not own and prose < MIN_ALONE:
            return 0.0
        below = [child for child, _ in self._roles.parts_of(subject)]
        if not (title or text) and all(
            one.rows <= subject.rows and one.text_length < MIN_DESCRIPTION for one in below
        ):  # an icon with a caption in each language
            return 0.0
        length = prose + 100 * len(parts)
        return 1 + math.log10(1 + subject.rows) + math.log10(1 + length) + 0.5 * (bool(title) + min(3, len(parts)))

    def _add_join(self, relation: Relation, through: str = "", *, required: bool = False) -> str:
        """Join what rows refer to under the name of the column, and return the name."""
        stem = [word for word in words(relation.columns[0]) if word not in ("id", "fk", "no", "code", "uuid", "guid")]
        self._required += [relation] if required else []
        return self._rows.join("_".join(stem) or relation.parent.name, relation, through, required=required)

    def _place(self, table: DatabaseTable) -> dict[str, str]:
        """Return the keys that name a table: its schema is that of the index, if none is named."""
        if table.schema == self._subject.schema:
            return {"table": table.name}
        return {"table": table.name, "schema": str(table.schema or self._roles.default_schema)}

    def _title_of_others(self) -> str | None:
        """Join what says how a row is called: a row that extends it, or the value that is captioned so."""
        rows = self._rows
        if (own := self._subject.title_row) is not None:
            return rows.read(own.child, [str(own.child.title)], rows.join_back(own))[0]
        for one in self._subject.attributes:
            column, key = one.own.child.columns[one.caption.columns[0]], one.called()
            if isinstance(key, int | str):
                is_title = f"{column.sql} = {key if isinstance(key, int) else listed([key])}"
                if len(one.own.child.key) == 1:
                    is_title = one.first(is_title)
                name = rows.join_back(one.own, Condition(column.name, is_title, ""))
                if one.value is None:
                    return rows.read(one.own.child, [one.column], name)[0]
                return rows.read(one.value.parent, [one.column], self._add_join(one.value, name))[0]
        return None

    def _add_text_of_others(self) -> None:
        """Join the rows that hold the text of this one."""
        for way in text_parents(self._subject):
            through = ""
            for relation in way:
                through = self._add_join(relation, through, required=bool(relation.parent.conditions))
            donor = way[-1].parent
            columns = [*donor.title_columns, *donor.prose]
            told = [one for one in columns if donor.profiles[one].role == "prose"]
            self._rows.text += self._rows.read(donor, told, through)
            self._prose += donor.text_length

    def _add_label(self, relation: Relation, through: str = "") -> None:
        """Join what rows refer to: its name as text and payload; and what contains them, if that may be hidden.

        The rows are those of the index, or those that it joins as `through`.
        """
        above = relation.parent is self._subject
        relation = relation.to_title()
        parent = relation.parent
        used = relation.child.profiles[relation.columns[0]].filled and not (relation.type_column or relation.is_pointer)
        joined = vocab.COPIES & {*words(relation.columns[0])} if above else self._is_joined(parent)
        if joined or not used or (relation.prefix and parent.conditions):
            return
        required = hides(relation) and self._is_contained(relation)  # such as a forum
        says = bool(parent.title_columns) and not parent.says_nothing and (not parent.is_login or is_writer(relation))
        long = parent.has_prose and parent.text_length > MAX_LABEL_CHARS  # a copy of its title is found before it
        if not required and (not says or self._labels >= MAX_JOINS):
            return
        name = self._add_join(relation, through, required=required)
        self._labels += 1
        if says:
            self._payload += [f"{name}.{column}" for column in parent.title_columns]
        if says and (required or not long) and parent is not self._subject:
            self._add_name(relation, name)
            for one in parent.own_relations if not parent.has_prose else ():  # the artist of the album of a track
                over = one.parent
                named = over.title in over.columns and not (over.is_people or over.says_nothing or over.has_prose)
                new = not (self._is_joined(over) or over.conditions) and self._labels < MAX_JOINS
                if named and new and not vocab.STATE_LABELS & {*words(one.columns[0])}:
                    self._labels += 1
                    self._add_name(one, self._add_join(one, name))

    def _add_name(self, relation: Relation, name: str) -> None:
        """Take the title of what is joined under a name as text, if it says what a row is about."""
        if not vocab.STATE_LABELS & {*words(relation.columns[0])}:
            self._rows.text += self._rows.read(relation.parent, relation.parent.title_columns, name)

    def _is_joined(self, table: Subject) -> bool:
        """Return whether documents have the row of a table, which is their own or a joined one."""
        return table is self._subject or table.name in [join["table"] for join in self._rows.joins.values()]

    def _is_contained(self, relation: Relation) -> bool:
        """Return whether all rows name one of the other table, and belong to it or are several in it.

        A row belongs to it if its table is called after it, as an answer's translation is. A row that rows of several
        tables name contains them, too.
        """
        values = [row[relation.columns[0]] for row in relation.child.shown_rows()]
        filled = [value for value in values if value is not None and value != ""]
        named = sum(value not in NOTHING for value in filled)
        every = named >= 0.98 * max(1, len(values)) and named == len(filled)
        hub = len({one.child for one in relation.parent.children if not one.type_column}) >= MIN_CHILDREN
        owned = {*relation.parent.noun} <= {*relation.child.noun[:-1]}
        return every and (owned or hub or relation.parent.rows * MIN_CONTAINER_SHARE <= max(relation.child.rows, 2))

    def _parts(self) -> list[_Rows]:
        """Return the parts, those of the row that translations are of, too."""
        subject, root = self._subject, self._root
        below = self._roles.below(subject)
        if root is not None:
            others = [one for one in self._roles.below(root.parent) if subject not in one.tables]
            below += [one.through(root) for one in others if {*one.way[-1].referred} <= {*root.referred}]
        labels = [one.shown[0][0].parent if one.label else subject for one in below]
        unique = {
            (one.way[0].child, to) if to is not subject else one: one for one, to in zip(below, labels, strict=True)
        }
        found = [self._part(one) for one in unique.values()]
        named = None if subject.title_row is None else subject.title_row.child  # one with the title alone says no more
        found = [one for one in found if "text" in one.settings() and not (one.subject is named and len(one.text) == 1)]
        details = [one for one in found if one.keys["on"] == one.keys["key"]]
        kept = {*details[:MAX_KINDS], *[one for one in found if one not in details][:MAX_PARTS]}
        return [one for one in found if one in kept]

    def _part(self, below: Below) -> _Rows:
        """Return the part with the texts of rows below those of this table, and of what these name."""
        way, child = below.way, below.way[0].child
        part = _Rows(child, self._place, {*child.columns}, [child.full_name])
        ways = [*way, *(chain(*below.shown) if len(below.shown) == 1 else ())]
        self._rows.taken.add(child.name)
        part.keys |= part.hide(child, ways)
        through = part.join_all(way[:-1], ways)
        on = {f"{through}.{here}" if through else here: there for here, there in way[-1].pairs}
        if below.label:
            on |= self._take_names(part, below)
        else:
            self._take_texts(part, below, ways)
            each = self._root is not None and child.locale in child.key and len(way[0].pairs) == 1
            on |= {str(child.locale): str(self._subject.locale)} if each else {}
        part.keys["on"] = _one_or_all([*on]) if [*on.values()] == self._key else on
        return part

    def _take_texts(self, part: _Rows, below: Below, ways: Sequence[Relation]) -> None:
        """Take the texts of the rows of a part, and of those that they name."""
        child = part.subject
        columns = [name for name in (*child.title_columns, *child.prose) if child.profiles[name].filled]
        part.text = part.read(child, [*below.columns] or columns or child.prose[:1] or child.title_columns)
        attributes = [one for one in self._attributes if one.own.child is child and one.value is None]
        for one in [one for one in attributes if one.own.columns == below.way[0].columns]:
            named, name = one.caption.parent, part.join(one.caption.parent.name, one.caption, required=False)
            caption = " ".join(f"{{{name}.{column}}}" for column in named.captions)
            part.keys["text"] = f"{caption}: {{{one.column}}}"
        if child.pair:
            part.keys["text"] = ": ".join(f"{{{name}}}" for name in child.pair)
        short = sum(child.profiles[name].length for name in part.text) < 40 and not child.has_prose
        for shown in below.shown:  # the row that has the text, as `bugnote_text` has
            donor = shown[-1].parent
            part.text += part.read(donor, [*donor.title_columns, *donor.prose], part.join_all(shown, ways))
        used = {name for one in ways if one.child is child for name in (*one.columns, one.type_column)}
        is_open = all(child.profiles[name].role != "secret" for name in child.key)
        part.keys["key"] = _one_or_all(child.key) if is_open else []
        part.keys |= {"order_by": _one_or_all(self._order(child, used)), "inline": short and not below.shown}

    def _take_names(self, part: _Rows, below: Below) -> dict[str, str]:
        """Take the names of what the rows of a part name, such as tags, and a value of each; return their language."""
        part.keys |= {"key": [], "inline": True, "order_by": [name for (one,) in below.shown for name in one.columns]}
        names = [(self._join_label(part, one, required=len(below.shown) == 1), one) for (one,) in below.shown]
        if len(names) > 1:
            part.text = [
                title for name, one in names for title in part.read(one.parent, one.parent.title_columns, name)
            ]
            return {}
        ((name, relation),) = names
        label = relation.parent
        told = (*vocab.LINK_VALUES, *vocab.PLAYED)
        values = [
            p.name for p in part.subject.profiles.values() if p.last_word in told and p.texts and p.role in VALUES
        ]
        part.read(label, label.title_columns, name)
        part.keys["name"] = name
        for one in self._attributes:
            if one.caption is relation and one.value is not None:
                values = part.read(one.value.parent, [one.column], part.join("value", one.value))
                part.keys["inline"] = not one.value.parent.has_prose
        part.keys["text"] = "".join([label.title_of(name), *[f": {{{value}}}" for value in values[:1]]])
        locale = self._subject.locale if self._root else None
        if label.locale is None or locale is None:
            return {}
        return {f"{name}.{label.locale}": locale, **({part.subject.locale: locale} if part.subject.locale else {})}

    def _join_label(self, part: _Rows, relation: Relation, *, required: bool) -> str:
        """Join what rows of a part name, called as it is, or as the rows are if all kinds of labels have one table."""
        label, link = relation.parent, part.subject
        called = link.called if any(one.parent.title_row is one for one in label.relations) else label.called
        called = called[:-1] if len(called) > 1 and called[-1] in vocab.TRANSLATIONS else called
        name = part.join("_".join(called), relation, required=required)
        self._rows.taken.add(name)
        return name

    def _order(self, child: Subject, on: Container[str]) -> list[str]:
        """Return the columns by which the rows of a part are ordered."""
        free = {name: child.profiles[name].role for name in child.columns if name not in on}
        named = {name: role for name, role in free.items() if words(name)[-1] in vocab.ORDERS}
        places = [name for name, role in named.items() if role in ("number", "flag") or len(words(name)) == 1]
        keys = [name for name in child.key if name in free]
        if not places and keys and child.columns[keys[0]].kind != "number":
            times = [name for name, role in free.items() if role in ("time", "number")]
            places = [name for name in times if words(name)[0] in vocab.CREATED]
        return list(dict.fromkeys([*places[:1], *keys]))

    def _complete(self, title: str | None, parts: Sequence[_Rows]) -> None:
        """Add all settings that are no text and no join."""
        subject, rows = self._subject, self._rows
        used = {*rows.joins, *subject.columns}
        for part in parts:  # a part has a name if another part, a join or a column has that of its table
            wanted = label = part.keys.get("name", part.subject.name)
            if label in used:
                label = free_name(_identifier(wanted, "part"), used)
            used.add(label)
            part.keys["name"] = label if label != part.subject.name else ""
        languages = find_languages([text for one in (rows, *parts) for text in one.samples])
        by_code, column = subject.profiles.get(str(subject.locale)), ""
        if by_code is not None and by_code.role == "locale":
            languages = list(dict.fromkeys(filter(None, map(language_of, by_code.choices)))) or [NO_LANGUAGE]
            column = by_code.name if len(languages) > 1 else ""
        replies = [] if subject.thread is None else [answers_none(subject.thread)]
        rows.keys |= rows.hide(subject, self._required, replies) | {
            "schema": subject.schema,
            "key": _one_or_all(self._key),
            "newest": self._newest,
            "title": title,
            "payload": self._chosen_payload(),
            "language": [] if languages == ["english"] else _one_or_all(languages),
            "language_column": column,
            "parts": [part.settings() for part in parts],
        }
        rows.reasons |= dict.fromkeys(["format", "language"], "as the values look")

    def _chosen_payload(self) -> list[str]:
        """Return the columns that a hit shows beside its text, the most useful first."""
        subject = self._subject
        used = {RESERVED_KEY, *self._key, *self._rows.text, *subject.title_columns, *subject.named_columns}
        used |= {one.column for one in subject.conditions}
        ranked: list[tuple[int, str]] = []
        for name, profile in subject.profiles.items():
            named = {*words(name)} if profile.filled and subject.columns[name].kind != "bytes" else set()
            useful = (
                profile.role in ("choice", "locale") and len(profile.choices) > 1,
                profile.role == "time" and named & vocab.CREATED and not named & {"login"},
                profile.role == "time" and named & vocab.CHANGED,
                profile.role in ("number", "flag") and named & vocab.USEFUL_NUMBERS,
                profile.role in ("short", "code") and profile.filled > 0.2,
            )
            ranked += [(rank, name) for rank, fits in enumerate(useful) if named and fits and name not in used][:1]
        own = [name for _, name in sorted(ranked, key=lambda one: one[0])]
        return [*self._payload, *own][:MAX_PAYLOAD]


def is_writer(relation: Relation) -> bool:
    """Return whether what wrote a row, or is to do something about it, has the name of a person, and no other."""
    person = relation.parent
    names = [" ".join(str(text) for text in row if text) for row in person.rows_of(*person.title_columns)]
    spoken = sum(" " in name.strip() for name in names) > FEW * len(names)
    return bool((vocab.WRITERS | vocab.BUYERS) & {*words(relation.columns[0])}) and spoken


def _with_word(names: Sequence[str], known: frozenset[str]) -> list[str]:
    """Return the names with one of these words."""
    return [name for name in names if known & {*words(name)}]


def _one_or_all(names: Sequence[str]) -> str | list[str]:
    """Return the only name, or else all of them."""
    return names[0] if len(names) == 1 else list(names)


def free_name(wanted: str, taken: Container[str], mark: str = "_") -> str:
    """Return a name that is not taken: the wanted one, or else with a number after the mark."""
    return next(name for n in count(1) if (name := f"{wanted}{mark}{n}" if n > 1 else wanted) not in taken)


def _identifier(name: str, otherwise: str) -> str:
    """Return a name as one that joins and parts may have; `otherwise` stands first if it begins with no letter."""
    plain = re.sub(r"\W+", "_", "_".join(words(name)), flags=re.ASCII).strip("_")
    return plain if plain[:1].isalpha() else f"{otherwise}_{plain}".strip("_")
