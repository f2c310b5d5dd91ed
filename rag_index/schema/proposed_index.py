"""The settings of one proposed index: what its text, title, parts, joins and payload are, and why."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.text_languages import find_languages, language_of
from rag_index.schema import vocabulary as vocab
from rag_index.schema.catalog import SAMPLED_ROWS, DatabaseTable
from rag_index.schema.columns import words
from rag_index.schema.hiding import answers_none, hides
from rag_index.schema.roles import (
    MAX_LABEL_CHARS,
    TableRoles,
    donors_of_part,
    held_texts,
    pointed_texts,
    text_parents,
    wanted_texts,
)
from rag_index.schema.subjects import NOTHING, Condition, Relation, Subject
from rag_index.schema.visibility import joined, listed, unclear_codes
from rag_index.settings.index import NO_LANGUAGE

if TYPE_CHECKING:
    from collections.abc import Container, Sequence


MAX_PAYLOAD = 8
MAX_JOINS = 4
MAX_PARTS = 8
MAX_LINKS = 4
MAX_KINDS = 30
"""At most this many one-to-one detail tables (one for each kind of page, say) become parts."""
MAX_CONTAINERS = 25
"""Larger tables are documents, and do not only describe what others refer to, as projects and forums do."""
MIN_DESCRIPTION = 80
"""A container whose texts have at least this many characters on average is a document too."""
MIN_THING = 15
"""The same, if its rows have a title and its name is not that of a kind or a state, as `visit_type` is."""
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
REASON = "reason"
"""Why rows of a part are hidden, until the parts have their numbers."""


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
        self._root = roles.root.get(subject)
        self._joins: dict[str, dict[str, Any]] = {}
        self._text: list[str] = []
        self._payload: list[str] = []
        self._format: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self._hidden: list[str] = []
        self._unclear: dict[str, None] = {}
        self._required: list[Relation] = []
        """The relations of the joins without which a row is no document."""
        self._part_names: set[str] = set()
        self._tables = [subject.full_name]
        self._texts: list[str] = []
        """Sampled texts, from which the languages are found."""
        self._prose = 0.0
        self._root_name = ""
        self._title: str | None = None
        self._labels = 0
        self._key, self._newest = self._find_key()

    def made(self) -> ProposedIndex | None:
        """Return the index; None if there is nothing to read."""
        subject = self._subject
        title = subject.title
        self._text += [name for name in subject.prose if subject.profiles[name].filled or subject.rows > SAMPLED_ROWS]
        self._note(subject, [*subject.title_columns, *subject.prose])
        self._prose += subject.text_length
        if self._root is not None:
            title = self._add_root(self._root) or title
        self._title = title = title or self._title_of_others()
        self._add_text_of_others()
        parts = self._parts()
        for relation in subject.relations:
            self._add_label(relation)
        for relation in self._root.parent.relations if self._root is not None else ():
            self._add_label(relation, self._root_name)
        self._text += self._note(subject, [name for name in subject.codes if name not in self._text][:3])
        told = any(child.has_prose for child, _ in self._roles.parts_of(subject))
        if not (title or self._text or told):
            return None
        if not title and not self._text and all(part.get("inline") for part in parts):
            title = f"{' '.join(subject.noun)} {' '.join(f'{{{name}}}' for name in self._key)}"
        times = self._times(0.9) if subject.columns[self._key[0]].kind != "number" else []
        return ProposedIndex(
            name="-".join((self._root.parent if self._root is not None else subject).called),
            settings=self._settings(title, parts),
            reasons=self._reasons,
            tables=self._tables,
            hidden=self._hidden,
            unclear=list(self._unclear),
            score=self._score(title, parts),
            # by which the newest rows are found: a number as key, else a time
            age=[*_with_word(times, vocab.CREATED | vocab.CHANGED), *times, *self._key][0],
            changed="" if self._newest else next(iter(_with_word(self._times(1), vocab.CHANGED)), ""),
        )

    def _times(self, least: float) -> list[str]:
        """Return the columns with times of at least a share of the rows."""
        return [p.name for p in self._subject.profiles.values() if p.role == "time" and p.filled >= least]

    def _score(self, title: str | None, parts: Sequence[dict[str, Any]]) -> float:
        """Return how likely people look for these documents; below 1 if they do not."""
        subject = self._subject
        own = [part for part in parts if not part.get("inline")]
        children = [one for one in subject.children if not {*vocab.VERSIONED, *vocab.OLD_VERSIONS} & {*one.child.noun}]
        if not self._prose and not own:
            codes = bool(subject.codes or len(self._text) > 1)
            told = [*map(words, subject.columns), *[one.child.noun for one in children]]
            sold = subject.codes and any({*named} & vocab.USEFUL_NUMBERS for named in told)
            referred = subject.is_value or (not sold and [one for one in children if not one.type_column])
            return NAMES_ALONE if title and subject.rows > 12 and not referred and codes else 0.5
        if not title and not parts and not wanted_texts(subject, subject.prose):
            return 0.0
        described = MIN_THING if title and not {*subject.noun} & vocab.KINDS else MIN_DESCRIPTION
        if subject.rows <= MAX_CONTAINERS and not own and self._prose < described and children:
            return 0.0
        if subject.rows < MIN_ROWS and not own and self._prose < MIN_ALONE:
            return 0.0
        below = [child for child, _ in self._roles.parts_of(subject)]
        if not (title or self._text) and all(
            one.rows <= subject.rows and one.text_length < MIN_DESCRIPTION for one in below
        ):  # an icon with a caption in each language
            return 0.0
        length = self._prose + 100 * len(parts)
        return 1 + math.log10(1 + subject.rows) + math.log10(1 + length) + 0.5 * (bool(title) + min(3, len(parts)))

    def _find_key(self) -> tuple[list[str], str]:
        """Return the key, and the column of which the greatest value is the document; "" if each row is one."""
        subject, version = self._subject, self._subject.version
        if version is not None:
            self._reasons["newest"] = f"{version} numbers the versions of a row: the newest alone is shown"
            return [name for name in subject.key if name != version], version
        if self._root is None or subject.locale is not None:
            return list(subject.key), ""
        self._reasons["newest"] = "of the versions, the newest alone is shown"
        others = [one for one in subject.columns.values() if one.name not in self._root.columns]
        numbers = _with_word([one.name for one in others if one.kind == "number"], vocab.VERSION_NUMBERS)
        return self._root.columns, [*numbers, *subject.key][0]

    def _note(self, subject: Subject, columns: Sequence[str], through: str = "") -> list[str]:
        """Note formats and texts of columns, and return what the settings call them: `through` is a join."""
        self._format |= self._read(subject, columns, through)
        return [f"{through}.{column}" if through else column for column in columns]

    def _read(self, subject: Subject, columns: Sequence[str], through: str = "") -> dict[str, str]:
        """Note texts of columns, and return how those are written that are not plain."""
        self._texts += [text for column in columns for text in subject.profiles[column].texts[:30]]
        forms = {f"{through}.{name}" if through else name: subject.profiles[name].form for name in columns}
        return {name: form for name, form in forms.items() if form != "plain"}

    def _add_join(self, relation: Relation, through: str = "", *, required: bool = False) -> str:
        """Add a join and return its name."""
        parent = relation.parent
        stem = [word for word in words(relation.columns[0]) if word not in ("id", "fk", "no", "code", "uuid", "guid")]
        named = _identifier("_".join(stem) or parent.name, "join")
        name = free_name(named, {*self._joins, *self._subject.columns, *self._part_names})
        join = self._join(relation, through, required=required)
        if len(relation.pairs) == 1 and relation.pairs[0][1] == "id" and not through and not relation.prefix:
            join["on"] = relation.columns[0]
        if required:
            self._hidden += [f"{parent.full_name}: {one.reason}" for one in parent.conditions]
        self._joins[name] = join
        if required:
            self._required.append(relation)
        self._tables.append(parent.full_name)
        return name

    def _place(self, table: DatabaseTable) -> dict[str, Any]:
        """Return the keys that name another table: its schema is that of the index, if none is named."""
        if table.schema == self._subject.schema:
            return {"table": table.name}
        return {"table": table.name, "schema": table.schema or self._roles.default_schema}

    def _join(
        self, relation: Relation, through: str = "", *, required: bool = True, way: Sequence[Relation] = ()
    ) -> dict[str, Any]:
        """Return the join with the row that a relation names, by its own columns or those of the join `through`.

        It is on a `way` of relations, which leads to what hides the row anyway.
        """
        join = self._place(relation.parent)
        dot, prefix = f"{through}." if through else "", relation.prefix
        join["on"] = {f"{prefix}{{{th}}}" if prefix else th: f"{dot}{here}" for here, th in relation.pairs}
        if required and (told := _conditions(relation.parent, way)):
            join["where"] = joined(told)
        return join | {"required": True} if required else join

    def _add_root(self, root: Relation) -> str | None:
        """Join what translations or versions are of, with its texts, and return its title if it has one."""
        parent, name = root.parent, self._add_join(root, required=True)
        self._root_name = name
        titles = self._note(parent, parent.title_columns, name)
        self._text += self._note(parent, [*parent.prose, *parent.codes[:3]], name)
        self._prose += parent.text_length
        if parent.title is None or self._subject.title is not None:
            self._text += titles
            return None
        return f"{name}.{parent.title}" if parent.title in parent.columns else parent.title_of(name)

    def _title_of_others(self) -> str | None:
        """Join what says how a row is called: a row that extends it, or the value that is captioned so."""
        if (own := self._subject.title_row) is not None:
            name = self._join_back(own, _conditions(own.child, [own]))
            return self._note(own.child, [str(own.child.title)], name)[0]
        for one in self._subject.attributes:
            column = one.own.child.columns[one.caption.columns[0]]
            key = one.called()
            if isinstance(key, int | str):
                written = f"{column.sql} = {key if isinstance(key, int) else listed([key])}"
                told = _conditions(one.own.child, [one.own])
                name = self._join_back(one.own, [Condition(column.name, written, ""), *told])
                if one.value is None:
                    return self._note(one.own.child, [one.column], name)[0]
                return self._note(one.value.parent, [one.column], self._add_join(one.value, name))[0]
        return None

    def _join_back(self, relation: Relation, conditions: Sequence[Condition]) -> str:
        """Join the only row of a table that names the row of this one and meets conditions, and return its name."""
        child = relation.child
        name = free_name(_identifier(child.name, "join"), {*self._joins, *self._subject.columns, *self._part_names})
        self._joins[name] = self._place(child) | {"on": dict(relation.pairs)}
        self._joins[name] |= {"where": joined(conditions)} if conditions else {}
        return name

    def _add_text_of_others(self) -> None:
        """Join the rows that hold the text of this one."""
        for way in text_parents(self._subject):
            through = ""
            for relation in way:
                hides = relation is way[0] and bool(relation.parent.conditions)
                through = self._add_join(relation, through, required=hides)
            donor = way[-1].parent
            columns = [*donor.title_columns, *donor.prose]
            self._text += self._note(donor, [one for one in columns if donor.profiles[one].role == "prose"], through)
            self._prose += donor.text_length

    def _add_label(self, relation: Relation, through: str = "") -> None:
        """Join what rows refer to: its name as text and payload; and what contains them, if that may be hidden.

        The rows are those of the index, or those that it joins as `through`.
        """
        above = relation.parent is self._subject
        relation = relation.to_title()
        parent = relation.parent
        used = relation.child.profiles[relation.columns[0]].filled and not (relation.type_column or relation.is_pointer)
        if parent is self._subject or not used or (relation.prefix and parent.conditions):
            return
        required = hides(relation) and self._is_contained(relation)  # such as a forum
        tables = [join["table"] for join in self._joins.values()]
        if parent.name in tables and not above:
            return
        says = parent.title in parent.columns and not parent.is_login and not parent.says_nothing
        long = parent.has_prose and parent.text_length > MAX_LABEL_CHARS
        if not required and (not says or self._labels >= MAX_JOINS or long):
            return
        name = self._add_join(relation, through, required=required)
        self._labels += 1
        if says:
            names = self._note(parent, [str(parent.title)], name)
            self._payload += names
            self._text += names if not vocab.STATE_LABELS & {*words(relation.columns[0])} else []
            self._add_label_of_label(parent, name)

    def _add_label_of_label(self, label: Subject, through: str) -> None:
        """Join what the label of a row names itself, once: the artist of the album of a track."""
        for one in label.own_relations if not label.has_prose else ():
            above = one.parent
            named = above.title in above.columns and not (above.is_people or above.says_nothing or above.has_prose)
            new = above.full_name not in self._tables and above is not self._subject and not above.conditions
            if named and new and not vocab.STATE_LABELS & {*words(one.columns[0])} and self._labels < MAX_JOINS:
                self._labels += 1
                self._text += self._note(above, [str(above.title)], self._add_join(one, through))

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

    def _parts(self) -> list[dict[str, Any]]:
        """Return the parts, those of the row that translations are of, too."""
        subject, roles = self._subject, self._roles
        found = [self._part(child, way) for child, way in roles.parts_below(subject)]
        if (thread := subject.thread) is not None:
            found.append(self._part(subject, [thread]))
            found += [self._part(child, [*way, thread]) for child, way in roles.parts_below(subject)]
        links: list[tuple[Relation, Relation, dict[str, str]]]
        links = [(own, label, {}) for own, label in roles.links_of(subject)[:MAX_LINKS]]
        if self._root is not None:
            by_column = {there: here for here, there in self._root.pairs}
            for own, label in roles.links_of(self._root.parent)[:MAX_LINKS]:
                if own.child is not subject and all(there in by_column for _, there in own.pairs):
                    links.append((own, label, by_column))
            for child, relation in roles.parts_of(self._root.parent):
                if child is not subject and all(there in by_column for _, there in relation.pairs):
                    found.append(self._part(child, [relation], by_column))
        for pointer, own, way in pointed_texts(subject)[:1]:
            versions = {there: here for here, there in pointer.pairs}
            found.append(self._linked_part(own, {here: versions[there] for here, there in own.pairs}, way))
        found += [self._linked_part(own, _on(own.pairs, self._key), [typed]) for own, typed in held_texts(subject)]
        labels = {(one[0].child, one[1].parent): one for one in links if one[1].parent is not subject}
        found += [self._label_part(*one) for one in labels.values()]
        self._prose += sum(40 for part in found if not part.get("inline"))
        extending = [part for part in found if part["on"] == part.get("key")]
        others = [part for part in found if part not in extending]
        kept = extending[:MAX_KINDS] + others[:MAX_PARTS]
        return self._labelled([part for part in found if part in kept and part["text"] and not self._is_title(part)])

    def _is_title(self, part: dict[str, Any]) -> bool:
        """Return whether a part has nothing but the title of the document."""
        return part["on"] == part.get("key") and any(
            join["table"] == part["table"] and part["text"] == [str(self._title).removeprefix(f"{name}.")]
            for name, join in self._joins.items()
        )

    def _labelled(self, parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the parts without empty keys, with a name where another part, a join or a column has the table's."""
        used = {*self._joins, *self._subject.columns}
        named: list[dict[str, Any]] = []
        for number, part in enumerate(parts):
            if reason := part.pop(REASON):
                self._reasons[f"parts.{number}.where"] = reason
            label = part.get("name", part["table"])
            if label in used:
                plain = _identifier(label, "part")
                label = free_name(plain, used | {plain})
            used.add(label)
            filled = {key: value for key, value in part.items() if value or key == "text"}
            named.append({"name": label} | filled | {"name": label} if label != part["table"] else filled)
        return named

    def _part(self, child: Subject, way: Sequence[Relation], by_column: dict[str, str] | None = None) -> dict[str, Any]:
        """Return a part of rows that name a row of this table, over one or more relations.

        With `by_column` they name the row that it is joined with, by these columns.
        """
        part = self._part_head(child, way)
        joins = self._join_way(part, way, [_identifier(one.parent.name, "parent") for one in way[:-1]])
        if joins:
            part["on"] = {f"{[*joins][-1]}.{here}": there for here, there in way[-1].pairs}
        elif by_column:
            part["on"] = {here: by_column[there] for here, there in way[0].pairs}
            if self._is_by_language(child, way[0]):
                part["on"][str(child.locale)] = str(self._subject.locale)
        else:
            part["on"] = _on(way[0].pairs, self._key)
        for place, relation in zip([part, *joins.values()], way, strict=True):
            self._restrict(place, relation)
        return self._with_text(part, child, [*way[0].columns, way[0].type_column])

    def _join_way(
        self, part: dict[str, Any], whole: Sequence[Relation], names: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """Join the rows that lead away from those of a part, one after another, and return the joins."""
        joins: dict[str, dict[str, Any]] = {}
        for relation, name in zip(whole, names, strict=False):
            joins[name] = self._join(relation, [*joins, ""][len(joins) - 1], way=whole)
        part |= {"joins": joins} if joins else {}
        return joins

    def _is_by_language(self, child: Subject, relation: Relation) -> bool:
        """Return whether rows of a part are for the document in their language alone: there is one for each of them."""
        own, theirs = self._subject.locale, child.locale
        root = self._roles.root[self._subject]
        if own is None or theirs is None or len(relation.pairs) > 1:
            return False
        documents = {*self._subject.rows_of(*root.columns, own)}
        rows = [row for row in child.rows_of(*relation.columns, theirs) if row[0] not in NOTHING]
        known = {row[0] for row in documents}
        return all(row in documents for row in rows if row[0] in known)

    def _part_head(self, child: Subject, way: Sequence[Relation]) -> dict[str, Any]:
        self._part_names.add(child.name)
        self._tables.append(child.full_name)
        part = self._place(child)
        return part | {REASON: self._hide(part, child, _conditions(child, way))}

    def _hide(self, place: dict[str, Any], subject: Subject, conditions: Sequence[Condition]) -> str:
        """Leave the rows out that conditions hide, and return why."""
        if conditions:
            place["where"] = joined(conditions)
            self._hidden += [f"{subject.full_name}: {one.reason}" for one in conditions]
        known = {one.column for one in conditions} | {one.type_column for one in subject.relations}
        self._unclear |= dict.fromkeys(unclear_codes(subject, known | subject.named_columns))
        return "; ".join(one.reason for one in conditions)

    def _with_text(self, part: dict[str, Any], child: Subject, on: Sequence[str]) -> dict[str, Any]:
        columns = [*child.title_columns, *child.prose]
        columns = [name for name in columns if child.profiles[name].filled and not self._repeats(child, name)]
        texts = list(dict.fromkeys(columns or child.prose[:1] or child.title_columns))
        if child.key and all(child.profiles[name].role != "secret" for name in child.key):
            part["key"] = _one_or_all(child.key)
        part["order_by"] = _one_or_all(self._order(child, on))
        part["text"] = texts
        forms = self._read(child, texts)
        if sum(child.profiles[name].length for name in texts) < 40 and child.rows and not child.has_prose:
            part["inline"] = True
        for relation in donors_of_part(child):
            forms |= self._add_donated(part, child, relation)
        part["format"] = forms
        return part

    def _add_donated(self, part: dict[str, Any], child: Subject, relation: Relation) -> dict[str, str]:
        """Join the row that has the text of a part, as `bugnote_text` has, and return how it is written."""
        donor = relation.parent
        name = free_name(_identifier(donor.name, "text"), {*child.columns, *part.get("joins", ())})
        part.setdefault("joins", {})[name] = self._join(relation)
        part["text"] = [*part["text"], *[f"{name}.{column}" for column in donor.prose]]
        part.pop("inline", None)
        self._tables.append(donor.full_name)
        return self._read(donor, donor.prose, name)

    def _repeats(self, child: Subject, name: str) -> bool:
        """Return whether a title of a part is the document's title over again: `Re: …`."""
        texts = child.profiles[name].texts
        answers = sum(text.lower().startswith(("re:", "aw:", "fwd:", "re ")) for text in texts)
        return name in child.title_columns and answers * 4 >= max(1, len(texts))

    def _order(self, child: Subject, on: Sequence[str]) -> list[str]:
        """Return the columns by which the rows of a part are ordered."""
        free = {name: child.profiles[name].role for name in child.columns if name not in on}
        places = [
            name
            for name, role in free.items()
            if "_".join(words(name)) in vocab.ORDERS or (words(name)[-1] in vocab.ORDERS and role in ("number", "flag"))
        ]
        keys = [name for name in child.key if name in free]
        if not places and keys and child.columns[keys[0]].kind != "number":
            places = [
                name for name, role in free.items() if words(name)[0] in vocab.CREATED and role in ("time", "number")
            ]
        return list(dict.fromkeys([*places[:1], *keys])) if places or keys else []

    def _label_part(self, own: Relation, relation: Relation, by_column: dict[str, str]) -> dict[str, Any]:
        """Return the part with the labels, such as tags, that a table links with rows, and with a value of each.

        The rows are those of this table, or those that it is joined with by `by_column`.
        """
        link, label = own.child, relation.parent
        called = link.called if any(one.parent.title_row is one for one in label.relations) else label.called
        called = called[:-1] if len(called) > 1 and called[-1] in vocab.TRANSLATIONS else called
        name = _identifier("_".join(called), "label")
        part: dict[str, Any] = {"name": name, **self._part_head(link, [own, relation])}
        self._part_names.add(name)
        part["on"] = _on([(here, by_column.get(there, there)) for here, there in own.pairs], self._key)
        locale = self._subject.locale
        if by_column and label.locale is not None and locale is not None:
            part["on"] = {here: by_column[there] for here, there in own.pairs} | {f"{name}.{label.locale}": locale}
            part["on"] |= {link.locale: locale} if link.locale is not None else {}
        self._restrict(part, own)
        part["joins"] = {name: self._join(relation)}
        values = [
            p.name for p in link.profiles.values() if p.last_word in vocab.LINK_VALUES and p.texts and p.role in VALUES
        ]
        forms, inline = self._read(label, label.title_columns, name), True
        self._tables.append(label.full_name)
        for one in own.parent.attributes:
            if one.caption is relation and one.value is not None:
                table, through = one.value.parent, free_name("value", {name, *link.columns})
                part["joins"][through] = self._join(one.value)
                values, inline = [f"{through}.{one.column}"], not table.has_prose
                forms |= self._read(table, [one.column], through)
                self._tables.append(table.full_name)
        part["order_by"] = relation.columns
        part["text"] = "".join([label.title_of(name), *[f": {{{value}}}" for value in values[:1]]])
        return part | {"format": forms, "inline": inline}

    def _linked_part(self, own: Relation, on: Any, way: Sequence[Relation]) -> dict[str, Any]:
        """Return the part with texts that a table of links leads to."""
        part = self._part_head(own.child, [own, *way]) | {"on": on}
        self._restrict(part, way[0])
        joins = self._join_way(part, way, [_identifier(one.parent.name, "text") for one in way])
        donor, name = way[-1].parent, [*joins][-1]
        part["key"] = _one_or_all(own.child.key)
        columns = [*donor.title_columns, *donor.prose]
        part["order_by"] = _one_or_all(self._order(own.child, [*own.columns, *way[0].columns, way[0].type_column]))
        part["text"] = [f"{name}.{column}" for column in columns]
        self._tables += [relation.parent.full_name for relation in way]
        return part | {"format": self._read(donor, columns, name)}

    def _restrict(self, place: dict[str, Any], relation: Relation) -> None:
        """Add to the `where` of a part or a join that a relation means this table, if it is polymorphic."""
        if typed := relation.type_sql:
            place["where"] = f"{typed} AND {place['where']}" if "where" in place else typed

    def _settings(self, title: str | None, parts: list[dict[str, Any]]) -> dict[str, Any]:
        subject = self._subject
        made: dict[str, Any] = {"table": subject.name, "schema": subject.schema, "key": _one_or_all(self._key)}
        made["newest"] = self._newest
        if reason := self._hide(made, subject, self._conditions()):
            self._reasons["where"] = reason
        made["title"] = title
        made["text"] = [name for name in dict.fromkeys(self._text) if name not in subject.title_columns]
        used = {*made["text"], title, *subject.title_columns, *re.findall(r"\{([^{}]+)\}", title or "")}
        made["format"] = {name: form for name, form in self._format.items() if name in used}
        made["payload"] = self._chosen_payload()
        languages, by_code = find_languages(self._texts), subject.profiles.get(str(subject.locale))
        made["language"] = _one_or_all(languages)
        if by_code is not None and by_code.role == "locale":
            languages = list(dict.fromkeys(filter(None, map(language_of, by_code.choices)))) or [NO_LANGUAGE]
            made["language"] = _one_or_all(languages)
            made["language_column"] = by_code.name if len(languages) > 1 else None
        made |= {"joins": self._joins, "parts": parts}
        if languages == ["english"]:
            del made["language"]
        self._reasons |= dict.fromkeys(["format", "language"], "as the values look")
        return {key: value for key, value in made.items() if value or key == "payload"}

    def _conditions(self) -> list[Condition]:
        """Return what must hold for rows that are documents: for themselves, for what their type names, for replies."""
        subject = self._subject
        found = _conditions(subject, self._required)
        return found if subject.thread is None else [*found, answers_none(subject.thread)]

    def _chosen_payload(self) -> list[str]:
        """Return the columns that a hit shows beside its text, the most useful first."""
        subject = self._subject
        used = {RESERVED_KEY, *self._key, *self._text, *subject.title_columns, *subject.named_columns}
        used |= {one.column for one in subject.conditions}
        ranked: list[tuple[int, str]] = []
        for name, profile in subject.profiles.items():
            named = set(words(name))
            if name in used or not profile.filled or subject.columns[name].kind == "bytes":
                continue
            if profile.role in ("choice", "locale") and len(profile.choices) > 1:
                ranked.append((1, name))
            elif profile.role == "time" and named & vocab.CHANGED | (named & vocab.CREATED) and not named & {"login"}:
                ranked.append((2 if named & vocab.CREATED else 3, name))
            elif profile.role in ("number", "flag") and named & vocab.USEFUL_NUMBERS:
                ranked.append((4, name))
            elif profile.role in ("short", "code") and profile.filled > 0.2:
                ranked.append((5, name))
        own = [name for _, name in sorted(ranked, key=lambda one: one[0])]
        return [*self._payload, *own][:MAX_PAYLOAD]


def _with_word(names: Sequence[str], known: frozenset[str]) -> list[str]:
    """Return the names with one of these words."""
    return [name for name in names if known & {*words(name)}]


def _conditions(subject: Subject, way: Sequence[Relation]) -> list[Condition]:
    """Return the conditions of a table, but for those that what the relations of a way name makes anyway."""
    known = [one.columns for one in way if one.child is subject]
    return [one for one in subject.conditions if one.relation is None or one.relation.columns not in known]


def _on(pairs: Sequence[tuple[str, str]], key: Sequence[str]) -> str | list[str] | dict[str, str]:
    """Return the key `on` of a part: its columns alone, if they equal those of the document's key."""
    return _one_or_all([here for here, _ in pairs]) if [there for _, there in pairs] == list(key) else dict(pairs)


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
