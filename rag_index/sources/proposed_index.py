"""The settings of one proposed index: what its text, title, parts, joins and payload are, and why."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.languages import find_languages, language_of
from rag_index.settings.index import NO_LANGUAGE
from rag_index.sources.catalog import SAMPLED_ROWS
from rag_index.sources.columns import words
from rag_index.sources.roles import (
    MAX_LABEL_CHARS,
    OLD_VERSIONS,
    donors_of_part,
    pointed_texts,
    text_parents,
    wanted_texts,
)
from rag_index.sources.subjects import NOTHING
from rag_index.sources.visibility import answers_none, hidden_with, joined, unclear_codes
from rag_index.sources.vocabulary import known_words

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from rag_index.sources.catalog import DatabaseTable
    from rag_index.sources.relations import Relation
    from rag_index.sources.roles import TableRoles
    from rag_index.sources.subjects import Subject
    from rag_index.sources.visibility import Condition

MAX_PAYLOAD = 8
MAX_JOINS = 4
MAX_PARTS = 8
MAX_LINKS = 4
MAX_KINDS = 30
"""Tables with one more row for each row, one for each kind of page, say, that are parts at most."""
MAX_CONTAINERS = 25
"""Rows of a table that describes what others refer to, such as projects and forums, and is no document itself."""
MIN_DESCRIPTION = 80
"""The characters from which on the text of a container is one that people look for."""
MIN_THING = 15
"""The same, if its rows have a title and its name is not that of a kind or a state, as `visit_type` is."""
MIN_ROWS = 3
MIN_ALONE = 200
"""The characters from which on a text is one that people look for though its table has fewer rows than that."""
MIN_CHILDREN = 3
"""A table to which so many others refer contains their rows, too, such as a project."""
VALUES = frozenset(["prose", "short", "code", "choice", "other"])
"""The roles of a column with the value of a field that another table names."""
MIN_CONTAINER_SHARE = 2
"""A table of which each row contains at least so many of another is a container, such as a forum or a project."""
LINK_VALUES = ("value", "text")
"""Last words of columns with what a row has of what it is linked to, such as the weight of a product."""
TRANSLATIONS = frozenset(["lang", "translation", "translations", "i18n"])
"""Last words of tables with what rows of another one are called in each language."""
VALUE_WORDS = frozenset(["value", "coded", "answer"])
"""Words of columns that name a row of another table as a value."""
USEFUL_NUMBERS = known_words("proposal", "useful_numbers")
CREATED = known_words("proposal", "created")
CHANGED = known_words("proposal", "changed")
ORDERS = known_words("proposal", "orders")
STATE_LABELS = known_words("proposal", "state_labels")
KINDS = STATE_LABELS | {"role", "class", "datatype", "source", "level", "group", "method", "setting", "tag", "label"}


@dataclass(slots=True)
class ProposedIndex:
    """The settings of an index, with the reason for each of them."""

    name: str
    settings: dict[str, Any]
    reasons: dict[str, str]
    """Why a key has its value, by the key; of a part by its number and the key: `parts.0.where`."""
    tables: list[str]
    hidden: list[str]
    """Conditions that leave rows out, a sentence each."""
    unclear: list[str] = field(default_factory=list)
    """Numbers that may say who may see a row, a sentence each."""
    score: float = 0.0
    age: str = ""
    """The column whose greatest values the newest rows have."""
    changed: str = ""
    """The column with the time of a row's last change; "" if none has it for all rows."""


class IndexMaker:
    """Makes the settings of one index."""

    def __init__(self, subject: Subject, roles: TableRoles) -> None:
        self._subject = subject
        self._roles = roles
        self._subjects = roles.subjects
        self._table = subject.table
        self._joins: dict[str, dict[str, Any]] = {}
        self._text: list[str] = []
        self._payload: list[str] = []
        self._format: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self._hidden: list[str] = []
        self._unclear: list[str] = []
        self._part_names: set[str] = set()
        self._tables = [subject.table.full_name]
        self._texts: list[str] = []
        """Sampled texts, of which the languages are found."""
        self._prose = 0.0

    def made(self) -> ProposedIndex | None:
        """Return the index; None if there is nothing to read."""
        subject = self._subject
        root = self._roles.root.get(subject)
        key, newest = self._key(root)
        title = subject.title
        self._add_own_text()
        if root is not None:
            title = self._add_root(root) or title
        self._add_text_of_others()
        parts = self._parts(root, key)
        self._add_labels()
        self._text += [name for name in subject.codes if name not in self._text][:3]
        told = any(child.has_prose for child, _ in self._roles.parts_of(subject)) and not subject.is_link
        if not (title or self._text or told):
            return None
        if not title and not self._text and all(part.get("inline") for part in parts):
            title = f"{' '.join(subject.noun)} {' '.join(f'{{{name}}}' for name in key)}"
        settings = self._settings(key, newest, title, parts)
        score = self._score(title, parts)
        age = self._age(key)
        changed = "" if newest else self._changed()
        name = self._name(root)
        unclear = list(dict.fromkeys(self._unclear))
        return ProposedIndex(name, settings, self._reasons, self._tables, self._hidden, unclear, score, age, changed)

    def _changed(self) -> str:
        times = [p.name for p in self._subject.profiles.values() if p.role == "time" and p.filled == 1]
        return next((name for name in times if set(words(name)) & CHANGED), "")

    def _age(self, key: Sequence[str]) -> str:
        """Return the column by which the newest rows are found: a number as key, else a time."""
        if self._table.columns[key[0]].kind == "number":
            return key[0]
        times = [p.name for p in self._subject.profiles.values() if p.role == "time" and p.filled > 0.9]
        named = [name for name in times if set(words(name)) & (CREATED | CHANGED)]
        return (named or times or list(key))[0]

    def _name(self, root: Relation | None) -> str:
        table = root.parent if root is not None else self._table
        return "-".join(self._subjects.nouns.words(table)) or table.name

    def _score(self, title: str | None, parts: Sequence[dict[str, Any]]) -> float:
        """Return how likely people look for these documents; below 1 if they do not."""
        own = [part for part in parts if not part.get("inline")]
        children = [one for one in self._subject.children if self._subjects.of(one.child).noun[-1] not in OLD_VERSIONS]
        if not self._prose and not own:
            referred = self._subject.is_value or [one for one in children if not one.type_column]
            codes = bool(self._subject.codes or len(self._text) > 1)
            return 1.0 if title and self._table.rows > 12 and not referred and codes else 0.5
        if not title and not parts and not wanted_texts(self._subject, self._subject.prose):
            return 0.0
        described = MIN_THING if title and not {*self._subject.noun} & KINDS else MIN_DESCRIPTION
        if self._table.rows <= MAX_CONTAINERS and not own and self._prose < described and children:
            return 0.0
        if self._table.rows < MIN_ROWS and not own and self._prose < MIN_ALONE:
            return 0.0
        length = self._prose + 100 * len(parts)
        return (
            1 + math.log10(1 + self._table.rows) + math.log10(1 + length) + 0.5 * bool(title) + 0.5 * min(3, len(parts))
        )

    def _key(self, root: Relation | None) -> tuple[list[str], str]:
        """Return the key, and the column of which the greatest value is the document."""
        key, version = list(self._table.key), self._subject.version
        if version is not None:
            self._reasons["newest"] = f"{version} numbers the versions of a row: the newest alone is shown"
            return [name for name in key if name != version], version
        if root is not None and self._subject.locale is None:
            order = self._version_order(root)
            self._reasons["newest"] = "of the versions, the newest alone is shown"
            return root.columns, order
        return key, ""

    def _version_order(self, root: Relation) -> str:
        named = [
            name
            for name in self._table.columns
            if {"version", "revision", "rev", "number", "no"} & set(words(name)) and name not in root.columns
        ]
        numbers = [name for name in named if self._table.columns[name].kind == "number"]
        times = [name for name in self._table.columns if self._subject.profiles[name].role == "time"]
        return (numbers or list(self._table.key) or times)[0]

    def _add_own_text(self) -> None:
        subject = self._subject
        for name in subject.prose:
            if subject.profiles[name].filled or self._table.rows > SAMPLED_ROWS:
                self._text.append(name)
        self._note(subject, [*subject.title_columns, *subject.prose])
        self._prose += subject.text_length

    def _note(self, subject: Subject, columns: Sequence[str], through: str = "") -> list[str]:
        """Note formats and texts of columns, and return what the settings call them: `through` is a join."""
        names = [f"{through}.{column}" if through else column for column in columns]
        for column, name in zip(columns, names, strict=True):
            profile = subject.profiles[column]
            if profile.form != "plain":
                self._format[name] = profile.form
            self._texts += profile.texts[:40]
        return names

    def _add_join(self, relation: Relation, through: str = "", *, required: bool = False) -> str:
        """Add a join and return its name."""
        parent = relation.parent
        stem = [word for word in words(relation.columns[0]) if word not in ("id", "fk", "no", "code", "uuid", "guid")]
        named = _identifier("_".join(stem) or parent.name, "join")
        name = free_name(named, {*self._joins, *self._table.columns, *self._part_names})
        join = self._join(relation, f"{through}." if through else "", required=required)
        if len(relation.pairs) == 1 and relation.pairs[0][1] == "id" and not through and not relation.prefix:
            join["on"] = relation.columns[0]
        if required:
            self._hidden += [f"{parent.full_name}: {one.reason}" for one in self._subjects.of(parent).conditions]
        self._joins[name] = join
        self._tables.append(parent.full_name)
        return name

    def _place(self, table: DatabaseTable) -> dict[str, Any]:
        """Return the keys that name another table: its schema is that of the index, if none is named."""
        if table.schema == self._table.schema:
            return {"table": table.name}
        return {"table": table.name, "schema": table.schema or self._subjects.catalog.default_schema}

    def _join(self, relation: Relation, through: str = "", *, required: bool = True) -> dict[str, Any]:
        """Return the join with the row that a relation names, by its own columns or those of `through`, with a dot."""
        join = self._place(relation.parent)
        prefix = relation.prefix
        join["on"] = {f"{prefix}{{{th}}}" if prefix else th: f"{through}{here}" for here, th in relation.pairs}
        conditions = self._subjects.of(relation.parent).conditions
        if conditions and required:
            join["where"] = joined(conditions)
        return join | {"required": True} if required else join

    def _add_root(self, root: Relation) -> str | None:
        """Join what translations or versions are of, with its texts, and return its title if it has one."""
        parent = self._subjects.of(root.parent)
        name = self._add_join(root, required=True)
        titles = self._note(parent, parent.title_columns, name)
        self._text += self._note(parent, [*parent.prose, *parent.codes[:3]], name)
        self._prose += parent.text_length
        title = parent.title
        if title is None or self._subject.title is not None:
            self._text += titles
            return None
        return f"{name}.{title}" if title in parent.table.columns else parent.title_of(name)

    def _add_text_of_others(self) -> None:
        """Join the rows that hold the text of this one."""
        for way in text_parents(self._subject, self._subjects):
            through = ""
            for number, relation in enumerate(way):
                through = self._add_join(
                    relation, through, required=number == 0 and bool(self._subjects.of(relation.parent).conditions)
                )
            donor = self._subjects.of(way[-1].parent)
            columns = [*donor.title_columns, *donor.prose]
            self._text += self._note(donor, [one for one in columns if donor.profiles[one].role == "prose"], through)
            self._prose += donor.text_length

    def _add_labels(self) -> None:
        """Join the tables that rows refer to: their names as text and payload, and containers that may be hidden."""
        joins = 0
        for own in self._subject.relations:
            self._add_hiding(own)
            relation, which = self._roles.naming(own)
            parent = self._subjects.of(relation.parent)
            if (
                relation.type_column
                or parent is self._subject
                or relation.is_pointer
                or not self._subject.profiles[own.columns[0]].filled
            ):
                continue
            hides = not which and self._hides(relation)
            joined_tables = [join["table"] for join in self._joins.values()]
            if relation.parent.name in joined_tables if hides else relation.parent.full_name in self._tables:
                continue
            says = parent.title in parent.table.columns and not parent.is_login and not parent.says_nothing
            label = parent.title if says else None
            if not hides and (
                label is None or joins >= MAX_JOINS or (parent.has_prose and parent.text_length > MAX_LABEL_CHARS)
            ):
                continue
            name = self._add_join(relation, required=hides)
            self._joins[name] |= {"where": which} if which else {}
            joins += 1
            if label is not None:
                names = self._note(parent, [label], name)
                self._payload += names
                if not STATE_LABELS & set(words(relation.columns[0])):
                    self._text += names

    def _hides(self, relation: Relation) -> bool:
        """Return whether rows are hidden with the row of another table that contains them, such as a forum."""
        parent = self._subjects.of(relation.parent)
        hiding = [one for one in parent.conditions if "retired" not in words(one.column)]  # what it has stays
        return bool(hiding) and not parent.is_people and self._is_contained(relation)

    def _is_contained(self, relation: Relation) -> bool:
        """Return whether all rows name one of the other table, which contains several rows, or those of several."""
        values = self._subjects.of(relation.child).shown(relation.columns[0])
        filled = [value for value in values if value is not None and value != ""]
        named = sum(value not in NOTHING for value in filled)
        every = named >= 0.98 * max(1, len(values)) and named == len(filled)
        parent = self._subjects.of(relation.parent)
        hub = len({one.child.full_name for one in parent.children if not one.type_column}) >= MIN_CHILDREN
        return every and (hub or relation.parent.rows * MIN_CONTAINER_SHARE <= max(relation.child.rows, 2))

    def _add_hiding(self, relation: Relation) -> None:
        """Join what hides rows by two steps, such as the project of the wiki of a page."""
        parent = self._subjects.of(relation.parent)
        if relation.type_column or parent is self._subject or parent.conditions or not self._is_contained(relation):
            return
        for second in parent.relations:
            above = second.parent
            if second.type_column or above in (self._table, parent.table) or not self._hides(second):
                continue
            if above.full_name not in self._tables:
                self._add_join(second, self._add_join(relation, required=True), required=True)
            return

    def _parts(self, root: Relation | None, key: Sequence[str]) -> list[dict[str, Any]]:
        """Return the parts, those of the row that translations are of, too."""
        found: list[dict[str, Any]] = []
        for child, relation in self._roles.parts_of(self._subject):
            if child.has_text or not self._roles.parts_of(child):
                found.append(self._part(child, relation, key, len(found)))
            for below, way in self._roles.parts_below(child):
                found.append(self._part_of_part(below, [*way, relation], len(found)))
        if self._subject.thread is not None:
            found.append(self._part(self._subject, self._subject.thread, key, len(found)))
        links: list[tuple[Relation, list[Relation], dict[str, str]]]
        links = [(own, way, {}) for own, way in self._roles.links_of(self._subject)[:MAX_LINKS]]
        if root is not None:
            by_column = {there: here for here, there in root.pairs}
            of_root = self._roles.links_of(self._subjects.of(root.parent))[:MAX_LINKS]
            links += [
                (own, way, by_column)
                for own, way in of_root
                if own.child is not self._table and all(there in by_column for _, there in own.pairs)
            ]
            for child, relation in self._roles.parts_of(self._subjects.of(root.parent)):
                if child is not self._subject and all(there in by_column for _, there in relation.pairs):
                    found.append(self._part(child, relation, key, len(found), by_column))
        for pointer, own, way in pointed_texts(self._subject, self._subjects)[:1]:
            found.append(self._pointed_part(pointer, own, way, len(found)))
        labels = {(id(own.child), id(way[-1].parent)): (own, way, by_column) for own, way, by_column in links}
        for own, way, by_column in labels.values():
            if way[-1].parent is not self._table:
                found.append(self._label_part(own, way, key, len(found), by_column))
        self._prose += sum(40 for part in found if not part.get("inline"))
        extending = [part for part in found if part["on"] == part.get("key")]
        others = [part for part in found if part not in extending]
        kept = extending[:MAX_KINDS] + others[:MAX_PARTS]
        return _with_labels([part for part in found if part in kept], {*self._joins, *self._table.columns})

    def _part(
        self,
        child: Subject,
        relation: Relation,
        key: Sequence[str],
        number: int,
        by_column: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return a part of rows that name a row of this table, or of one that it is joined with by `by_column`."""
        part = self._part_head(child, number)
        pairs = [(here, by_column[there] if by_column else there) for here, there in relation.pairs]
        if by_column and self._is_by_language(child, relation):
            pairs.append((str(child.locale), str(self._subject.locale)))
        part["on"] = dict(pairs) if by_column else _on(pairs, key)
        self._restrict(part, relation)
        return self._with_text(part, child, [*relation.columns, relation.type_column])

    def _is_by_language(self, child: Subject, relation: Relation) -> bool:
        """Return whether rows of a part are for the document in their language alone: there is one for each of them."""
        own, theirs = self._subject.locale, child.locale
        root = self._roles.root[self._subject]
        if own is None or theirs is None or len(relation.pairs) > 1:
            return False
        documents = {*_values(self._table, [*root.columns, own])}
        rows = [row for row in _values(child.table, [*relation.columns, theirs]) if row[0] not in NOTHING]
        known = {row[0] for row in documents}
        return all(row in documents for row in rows if row[0] in known)

    def _part_of_part(self, child: Subject, way: Sequence[Relation], number: int) -> dict[str, Any]:
        """Return a part of rows that name a row of a part, over one or more relations that lead to this table."""
        part = self._part_head(child, number)
        part["joins"], name, place = {}, "", part
        for relation in way[:-1]:
            self._restrict(place, relation)
            place = self._join(relation, f"{name}." if name else "")
            name = _identifier(relation.parent.name, "parent")
            part["joins"][name] = place
        self._restrict(place, way[-1])
        part["on"] = {f"{name}.{here}": there for here, there in way[-1].pairs}
        return self._with_text(part, child, [*way[0].columns, way[0].type_column])

    def _part_head(self, child: Subject, number: int) -> dict[str, Any]:
        self._part_names.add(child.table.name)
        part = self._place(child.table)
        self._hide(part, child, child.conditions, f"parts.{number}.where")
        self._tables.append(child.table.full_name)
        return part

    def _hide(self, place: dict[str, Any], subject: Subject, conditions: Sequence[Condition], reason: str) -> None:
        """Leave the rows out that conditions hide, and say why; `reason` is the key of that."""
        if conditions:
            place["where"] = joined(conditions)
            self._reasons[reason] = "; ".join(one.reason for one in conditions)
            self._hidden += [f"{subject.table.full_name}: {one.reason}" for one in subject.conditions]
        known = {one.column for one in conditions}
        for relation in subject.relations:
            known |= {*relation.columns, relation.type_column}
        self._unclear += unclear_codes(subject.table, known)

    def _with_text(self, part: dict[str, Any], child: Subject, on: Sequence[str]) -> dict[str, Any]:
        columns = [*child.title_columns, *child.prose]
        columns = [name for name in columns if child.profiles[name].filled and not self._repeats(child, name)]
        texts = list(dict.fromkeys(columns or child.prose[:1] or child.title_columns))
        order = self._order(child, on)
        key = [name for name in child.table.key if child.profiles[name].role != "secret"]
        if key and len(key) == len(child.table.key):
            part["key"] = _one_or_all(key)
        if order:
            part["order_by"] = _one_or_all(order)
        part["text"] = texts
        part |= _format(child, texts)
        if sum(child.profiles[name].length for name in texts) < 40 and child.table.rows and not child.has_prose:
            part["inline"] = True
        self._add_donated(part, child)
        for name in texts:
            self._texts += child.profiles[name].texts[:20]
        self._add_values(part, child, on)
        return part

    def _add_donated(self, part: dict[str, Any], child: Subject) -> None:
        """Join the row that has the text of a part, as `bugnote_text` has."""
        for relation in donors_of_part(child, self._subjects):
            donor = self._subjects.of(relation.parent)
            name = free_name(_identifier(donor.table.name, "text"), {*child.table.columns, *part.get("joins", ())})
            part.setdefault("joins", {})[name] = self._join(relation)
            part["text"] = [*part["text"], *[f"{name}.{column}" for column in donor.prose]]
            form = part.get("format", {}) | _format(donor, donor.prose, f"{name}.").get("format", {})
            part |= {"format": form} if form else {}
            part.pop("inline", None)
            self._texts += [text for column in donor.prose for text in donor.profiles[column].texts[:20]]
            self._tables.append(donor.table.full_name)

    def _add_values(self, part: dict[str, Any], child: Subject, on: Sequence[str]) -> None:
        """Join what the rows of a part have for a value, if that is a row of another table: `value_coded`."""
        for one in child.relations:
            column = one.columns[0]
            is_value = VALUE_WORDS & set(words(column)) and child.profiles[column].filled
            if one.type_column or column in on or not is_value:
                continue
            relation, which = self._roles.naming(one)
            parent = self._subjects.of(relation.parent)
            if parent.title in parent.table.columns and not parent.is_people:
                name = free_name(_identifier(column, "value"), {*child.table.columns, *part.get("joins", ())})
                join = self._join(relation) | ({"where": which} if which else {})
                part.setdefault("joins", {})[name] = {key: join[key] for key in join if key != "required"}
                part["text"].append(f"{name}.{parent.title}")
                self._tables.append(relation.parent.full_name)

    def _repeats(self, child: Subject, name: str) -> bool:
        """Return whether a title of a part is the document's title over again: `Re: …`."""
        texts = child.profiles[name].texts
        answers = sum(text.lower().startswith(("re:", "aw:", "fwd:", "re ")) for text in texts)
        return name in child.title_columns and answers * 4 >= max(1, len(texts))

    def _order(self, child: Subject, on: Sequence[str]) -> list[str]:
        """Return the columns by which the rows of a part are ordered."""
        free = [name for name in child.table.columns if name not in on]
        places = [
            n
            for n in free
            if "_".join(words(n)) in ORDERS or (words(n)[-1] in ORDERS and child.profiles[n].role in ("number", "flag"))
        ]
        keys = [name for name in child.table.key if name in free]
        if not places and keys and child.table.columns[keys[0]].kind != "number":
            made = [n for n in free if words(n)[0] in CREATED and child.profiles[n].role in ("time", "number")]
            return made[:1] + keys
        return (places[:1] + [name for name in keys if name not in places]) if places else keys

    def _label_part(
        self, own: Relation, way: Sequence[Relation], key: Sequence[str], number: int, by_column: dict[str, str]
    ) -> dict[str, Any]:
        """Return the part with the labels, such as tags, that a table links with rows, and with a value of each.

        The rows are those of this table, or those that it is joined with by `by_column`.
        """
        link = self._subjects.of(own.child)
        table = list(self._subjects.nouns.words(way[-1].parent))
        if len(table) > 1 and table[-1] in TRANSLATIONS:
            del table[-1]
        name = _identifier("_".join(table), "label")
        part: dict[str, Any] = {"name": name, **self._part_head(link, number)}
        self._part_names.add(name)
        part["on"] = _on([(here, by_column.get(there, there)) for here, there in own.pairs], key)
        theirs = self._subjects.of(way[-1].parent).locale
        if by_column and theirs is not None and self._subject.locale is not None:
            part["on"] = {here: by_column[there] for here, there in own.pairs} | {
                f"{name}.{theirs}": self._subject.locale
            }
            if link.locale is not None:
                part["on"][link.locale] = self._subject.locale
        self._restrict(part, own)
        part["joins"], through = {}, ""
        for relation in way:
            step = name if relation is way[-1] else f"{name}_link"
            part["joins"][step] = self._join(relation, through)
            through = f"{step}."
        label = self._subjects.of(way[-1].parent)
        values = [p.name for p in link.profiles.values() if p.last_word in LINK_VALUES and p.texts and p.role in VALUES]
        part["order_by"] = way[0].columns
        part["text"] = "".join([label.title_of(name), *[f": {{{value}}}" for value in values[:1]]])
        part |= _format(label, label.title_columns, f"{name}.")
        part["inline"] = True
        self._tables += [relation.parent.full_name for relation in way]
        return part

    def _pointed_part(self, pointer: Relation, own: Relation, way: Sequence[Relation], number: int) -> dict[str, Any]:
        """Return the part with the text of the version that a row names, which a table of links leads to."""
        part = self._part_head(self._subjects.of(own.child), number)
        versions = {there: here for here, there in pointer.pairs}
        part["on"] = {here: versions[there] for here, there in own.pairs}
        part["joins"], step = {}, ""
        for relation in way:
            through, step = f"{step}." if step else "", _identifier(relation.parent.name, "text")
            part["joins"][step] = self._join(relation, through)
        donor = self._subjects.of(way[-1].parent)
        part["key"] = _one_or_all(own.child.key)
        part["text"] = [f"{step}.{name}" for name in donor.prose]
        self._texts += [text for name in donor.prose for text in donor.profiles[name].texts[:20]]
        self._tables += [relation.parent.full_name for relation in way]
        return part | _format(donor, donor.prose, f"{step}.")

    def _restrict(self, place: dict[str, Any], relation: Relation) -> None:
        """Add to the `where` of a part or a join that a relation means this table, if it is polymorphic."""
        if not relation.type_column:
            return
        typed = f"{self._subjects.catalog.quoted(relation.type_column)} = {relation.type_literal}"
        place["where"] = f"{typed} AND {place['where']}" if "where" in place else typed

    def _settings(
        self, key: Sequence[str], newest: str, title: str | None, parts: list[dict[str, Any]]
    ) -> dict[str, Any]:
        subject = self._subject
        made: dict[str, Any] = {"table": self._table.name}
        if self._table.schema:
            made["schema"] = self._table.schema
        made["key"] = _one_or_all(key)
        if newest:
            made["newest"] = newest
        self._hide(made, subject, self._conditions(), "where")
        if title:
            made["title"] = title
        text = [name for name in dict.fromkeys(self._text) if name not in subject.title_columns]
        if text:
            made["text"] = text
        used = {*text, title, *subject.title_columns, *re.findall(r"\{([^{}]+)\}", title or "")}
        form = {name: form for name, form in self._format.items() if name in used}
        if form:
            made["format"] = form
            self._reasons["format"] = "as the values look"
        made["payload"] = self._chosen_payload(key)
        language = self._language()
        if language != "english":
            made["language"] = language
            self._reasons["language"] = "as the values look"
            if self._has_codes and isinstance(language, list):
                made["language_column"] = subject.locale
        if self._joins:
            made["joins"] = self._joins
        if parts:
            made["parts"] = parts
        return made

    def _conditions(self) -> list[Condition]:
        """Return what must hold for rows that are documents: for themselves, for what their type names, for replies."""
        subject, catalog = self._subject, self._subjects.catalog
        found = list(subject.conditions)
        for relation in subject.relations:
            above = self._subjects.of(relation.parent).conditions if relation.type_column else []
            found += [hidden_with(relation, above, catalog)] if above and len(relation.pairs) == 1 else []
        if subject.thread is not None:
            found.append(answers_none(self._table, subject.thread.columns[0], catalog.quoted))
        return found

    @property
    def _has_codes(self) -> bool:
        """Return whether a column says the language of a row by its code."""
        return self._subject.locale is not None and self._subject.profiles[self._subject.locale].role == "locale"

    def _language(self) -> str | list[str]:
        """Return the language of the texts, or several."""
        if self._has_codes:
            codes = self._subject.profiles[str(self._subject.locale)].choices
            return _one_or_all(list(dict.fromkeys(filter(None, map(language_of, codes)))) or [NO_LANGUAGE])
        return _one_or_all(find_languages(self._texts))

    def _chosen_payload(self, key: Sequence[str]) -> list[str]:
        """Return the columns that a hit shows beside its text, the most useful first."""
        subject = self._subject
        used = {column for relation in subject.relations for column in relation.columns} | set(key) | {RESERVED_KEY}
        used |= {*self._text, *subject.title_columns, *[one.column for one in subject.conditions]}
        ranked: list[tuple[int, str]] = []
        for name, profile in subject.profiles.items():
            named = set(words(name))
            if name in used or not profile.filled:
                continue
            if profile.role in ("choice", "locale") and len(profile.choices) > 1:
                ranked.append((1, name))
            elif profile.role == "time" and named & CHANGED | (named & CREATED) and not named & {"login"}:
                ranked.append((2 if named & CREATED else 3, name))
            elif profile.role in ("number", "flag") and named & USEFUL_NUMBERS:
                ranked.append((4, name))
            elif profile.role in ("short", "code") and profile.filled > 0.2:
                ranked.append((5, name))
        own = [name for _, name in sorted(ranked, key=lambda one: one[0])]
        return [*self._payload, *own][:MAX_PAYLOAD]


def _values(table: DatabaseTable, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the sampled values of some columns, a tuple for each row."""
    return list(zip(*[table.columns[name].values for name in names], strict=True))


def _on(pairs: Sequence[tuple[str, str]], key: Sequence[str]) -> str | list[str] | dict[str, str]:
    """Return the key `on` of a part: its columns alone, if they equal those of the document's key."""
    return _one_or_all([here for here, _ in pairs]) if [there for _, there in pairs] == list(key) else dict(pairs)


def _one_or_all(names: Sequence[str]) -> str | list[str]:
    """Return the only name, or else all of them."""
    return names[0] if len(names) == 1 else list(names)


def _format(subject: Subject, columns: Sequence[str], through: str = "") -> dict[str, dict[str, str]]:
    """Return the key `format` for those columns that are not plain; {} if all are."""
    forms = {f"{through}{name}": subject.profiles[name].form for name in columns}
    marked = {name: form for name, form in forms.items() if form != "plain"}
    return {"format": marked} if marked else {}


def free_name(wanted: str, taken: Container[str], mark: str = "_") -> str:
    """Return a name that is not taken: the wanted one, or else with a number after the mark."""
    return next(name for n in count(1) if (name := f"{wanted}{mark}{n}" if n > 1 else wanted) not in taken)


def _identifier(name: str, otherwise: str) -> str:
    """Return a name as one that joins and parts may have; `otherwise` stands first if it begins with no letter."""
    plain = re.sub(r"\W+", "_", "_".join(words(name)), flags=re.ASCII).strip("_")
    return plain if plain[:1].isalpha() else f"{otherwise}_{plain}".strip("_")


def _with_labels(parts: list[dict[str, Any]], taken: set[str]) -> list[dict[str, Any]]:
    """Return the parts, with a name for each whose table's name another part, a join or a column has."""
    used = set(taken)
    named: list[dict[str, Any]] = []
    for part in parts:
        label = part.get("name", part["table"])
        if label in used:
            plain = _identifier(label, "part")
            label = free_name(plain, used | {plain})
        used.add(label)
        named.append({"name": label} | part | {"name": label} if label != part["table"] else part)
    return named
