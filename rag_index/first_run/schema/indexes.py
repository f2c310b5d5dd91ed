"""The settings of an index: text, title, parts, joins, payload and conditions, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slugify import slugify

from rag_index.core.documents.batches import RESERVED_KEY
from rag_index.core.documents.text_languages import find_languages, language_of
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import make_id
from rag_index.first_run.schema.documents import Part, Plan, identifier
from rag_index.first_run.schema.hidden_rows import passes
from rag_index.first_run.schema.proposed import ProposedIndex
from rag_index.first_run.schema.words import words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rag_index.first_run.schema.candidates import Candidate
    from rag_index.first_run.schema.columns import Column
    from rag_index.first_run.schema.rulings import Rulings
    from rag_index.first_run.schema.tables import Condition, Relation, Table

MAX_NAME_CHARS = 80
STATE_LABELS = known.ASKED | known.BROUGHT | {"priority", "kind"}
"""Words of columns whose labels people filter by, but which say little about what a row is
about."""


class _Rows:
    """Rows that are documents or parts, as their settings come together."""

    def __init__(self, table: Table, schema: str | None, plan: Plan) -> None:
        self.table = table
        self.schema = schema
        self.plan = plan
        self.taken = {*table.columns}
        self.text: list[str] = []
        self.format: dict[str, str] = {}
        self.joins: dict[str, dict[str, Any]] = {}
        self.payload: dict[str, str] = {}
        """Columns with the kind of their payload index; "" without one."""
        self.joined: set[Table] = {table}
        self.samples: list[str] = []

    def place(self, table: Table) -> dict[str, Any]:
        """Return the keys that name a table: its schema is that of the index, if none is named."""
        if table.schema == self.schema:
            return {"table": table.own_name}
        return {"table": table.own_name, "schema": table.schema or "public"}

    def read(self, table: Table, columns: Sequence[str], through: str = "") -> list[str]:
        """Note how columns are written, and return what the settings call them: `through` is a
        join."""
        names = [f"{through}.{column}" if through else column for column in columns]
        for name, column in zip(names, columns, strict=True):
            found = table.columns[column]
            self.plan.read.add((table, column))
            self.samples += found.texts[:30]
            if found.form != "plain":
                self.format[name] = found.form
        return names

    def join(self, relation: Relation, through: str = "", **more: Any) -> str:
        """Join the row that a relation names, of its own row or that of the join `through`; return
        the name."""
        name = self._free_join(relation)
        self.taken.add(name)
        on = {there: f"{through}.{here}" if through else here for here, there in relation.pairs}
        column = on["id"] if [*on] == ["id"] else on
        self.joins[name] = {**self.place(relation.parent), "on": column, **more}
        self.joined.add(relation.parent)
        self.plan.read.add((relation.parent, ""))
        return name

    def _free_join(self, relation: Relation) -> str:
        """Return a name for a join that no column and no other join has."""
        parent = relation.parent
        skip = known.KEY_WORDS | {*words(parent.key[0])}
        stem = "_".join(word for word in words(relation.column) if word not in skip)
        wanted = [parent.own_name, f"{stem}_row"]
        if stem and relation.column not in relation.child.key:
            # `owner_id` names rows of `users`: `owner`, or else `owner_user`
            wanted = [stem, f"{stem}_{parent.noun[-1]}", *wanted]
        names = [identifier(one, "row") for one in wanted]
        taken = {*map(str.lower, self.taken)}
        for name in names:
            if name.lower() not in taken:
                return name
        return free_name(names[0], self.taken)

    def add_labels(self, skip: Table | None = None) -> None:
        """Join what rows name: it is a text, if it says what a row is about, and people filter by
        it."""
        for one in self.table.parents:
            if one.parent is not skip and self._is_label(one):
                self._add_label(one)

    def _is_label(self, one: Relation) -> bool:
        """Return whether what rows name says something of them, and may be joined."""
        parent = one.parent
        if one.type_column or one.is_pointer or one.share < known.HARDLY:
            return False
        if parent in self.plan.few or not self._may_join(one):
            return False
        is_joined = parent in self.joined and parent is not self.table
        if is_joined and not one.writes:
            # only persons are joined again: the author and the owner
            return False
        if parent.title and parent.rows > 1:
            return True
        is_own = one.extends or len(parent.children) < 2
        return bool(parent.prose) and not parent.machine and is_own

    def _add_label(self, one: Relation) -> None:
        """Join the label, with its title as a text unless it is a state."""
        parent, hiding = one.parent, one.parent.conditions
        if parent is not self.table:
            # What a hidden row hides is not read at all, but for a row that names one of its own
            # table.
            hiding = [told for told in hiding if not passes(one, told)]
        name = self.join(one, **self.where(hiding))
        titles = self.read(parent, parent.title_columns, name)
        self.payload |= dict.fromkeys(titles, "")
        if titles and (parent.is_people or 2 * parent.rows <= self.table.rows):
            # `{first_name} {last_name}`: people filter by the last
            self.payload[titles[-1]] = "keyword"
        called = {*words(one.column), *parent.noun[-1:]}
        if parent.prose or not STATE_LABELS & called:
            self.text += titles
        else:
            # `priority.name` is no text
            for title in titles:
                self.format.pop(title, None)
        if not parent.title:
            self.text += self.read(parent, parent.prose, name)
        if not parent.prose and not parent.is_people:
            for over in parent.parents:
                self._add_name_above(over, name)

    def _may_join(self, one: Relation) -> bool:
        return one.is_whole and len(self.joins) < known.MAX_JOINS

    def _add_name_above(self, one: Relation, through: str) -> None:
        """Join what a joined row names in its turn: the artist of the album of a track."""
        over = one.parent
        if over in self.joined or over in self.plan.few or one.type_column:
            return
        if over.is_people or over.is_label or over.prose or not over.title:
            return
        if not self._may_join(one):
            return
        name = self.join(one, through, **self.where(over.conditions))
        titles = self.read(over, over.title_columns, name)
        self.text += titles
        self.payload |= dict.fromkeys(titles, "keyword" if len(titles) == 1 else "")

    def add_payload(self) -> None:
        """Add the columns that people filter by: choices, languages, levels and times."""
        table = self.table
        used = {RESERVED_KEY, *table.references, *table.title_columns, *table.key, *self.text}
        # All rows of an index have the same `is_private`, but not the same state.
        used |= {one.column for one in table.conditions if one.is_own and one.shown_values < 2}
        for name, one in table.columns.items():
            if name in used or one.filled < 2 * known.FEW or one.kind == "bytes":
                continue
            kind = _filter_kind(one)
            if kind is not None:
                self.payload[name] = kind

    def where(self, conditions: Sequence[Condition], *more: str) -> dict[str, str]:
        """Return the condition for the rows that may be shown."""
        parts = [*more, *[one.sql for one in conditions]]
        told = " AND ".join(filter(None, dict.fromkeys(parts)))
        if not told:
            return {}
        return {"where": told}


class IndexMaker:
    """Makes the settings of one index."""

    def __init__(self, table: Table, plan: Plan, taken: set[str], rulings: Rulings) -> None:
        self._table = table
        self._parts = plan.documents[table]
        self._rulings = rulings
        self._titled = plan.titles.get(table)
        self._rows = _Rows(table, table.schema, plan)
        self._taken = taken
        self.reasons: dict[str, str] = {}

    def made(self) -> ProposedIndex:
        """Return the index."""
        table, rows = self._table, self._rows
        title = self._title()
        rows.read(table, table.title_columns)
        rows.text += rows.read(table, [*table.texts, *self._codes(title)])
        rows.add_labels()
        used = {*table.columns, *rows.joins}
        parts = [self._part(one, used) for one in self._parts]
        rows.text = rows.text or ([] if parts else [*table.title_columns])
        rows.add_payload()
        inherited = [one for one in table.conditions if not one.is_own]
        settings: dict[str, Any] = {
            "table": table.own_name,
            "schema": table.schema,
            "key": one_or_all(table.key),
            **rows.where(inherited),
            "visible": {},
            "title": title,
        }
        settings |= {"text": rows.text, "format": rows.format}
        settings |= {**self._filters(parts), **self._language()}
        settings |= {"joins": rows.joins, "parts": parts}
        self._note(inherited, settings)
        self._decide(settings)
        made = {key: value for key, value in settings.items() if value or key == "payload"}
        return ProposedIndex(self._name(), table.name, made, self.reasons, self._age())

    def _decide(self, settings: dict[str, Any]) -> None:
        """Add the decisions of the index: on its own columns, and on others that its conditions
        refer to."""
        own = {one.sql for one in self._table.conditions if one.is_own}
        for ruling in self._rulings.found:
            if ruling.is_decision:
                is_own = f"$visible({ruling.candidate.id})" in own
                self._add_decision(ruling.candidate, settings, is_own)

    def _add_decision(self, one: Candidate, settings: dict[str, Any], is_own: bool) -> None:
        """Add a decision under the name that the index has for it, if it is the index's own or
        conditions refer to it."""
        name = one.id
        if is_own:
            # `is_private`, not `article.is_private`
            name = ".".join(filter(None, (make_id(one.column), one.key)))
        token = f"$visible({one.id})"
        used = [rows for rows in _with_conditions(settings) if token in rows["where"]]
        for rows in used:
            before = rows["where"]
            rows["where"] = before.replace(token, f"$visible({name})")
            if before in self.reasons:
                self.reasons[rows["where"]] = self.reasons[before]
        if not is_own and not used:
            return
        settings["visible"][name] = self._rulings.settings_of(one.id)
        if one.says:
            self.reasons[f"visible.{name}"] = f"hides rows if {one.says}: {one.why}"

    def _age(self) -> str:
        """Return the column whose greatest values the newest rows have."""
        key, columns = self._table.key[0], self._table.columns
        if columns[key].kind == "number":
            return key
        times = [one for one in columns.values() if one.role == one.kind == "time"]
        names = [one.name for one in times if one.filled >= known.NEARLY_ALL]
        updated = [name for name in names if "updated" in words(name)]
        found = [*updated, *names, key]
        return found[0]

    def _name(self) -> str:
        called = words(self._table.own_name)[-len(self._table.noun) :]
        base = slugify("-".join(called), max_length=MAX_NAME_CHARS) or "documents"  # of any script
        name = free_name(base, self._taken, "-")
        self._taken.add(name)
        return name

    def _note(self, conditions: Sequence[Condition], settings: dict[str, Any]) -> None:
        """Note why rows are left out."""
        where = settings.get("where")
        if where:
            sentences = [f"hides rows if {one.says}" for one in conditions]
            self.reasons[where] = "; ".join(dict.fromkeys(sentences))

    def _title(self) -> str:
        """Return the title, with the code by which people know a row before it."""
        table = self._table
        if self._titled is not None:
            other = self._titled.parent
            name = self._rows.join(self._titled, **self._rows.where(other.conditions))
            return self._rows.read(other, [other.title], name)[0]
        if not table.code or not table.title:
            return table.title or table.code
        rest = table.title if "{" in table.title else f"{{{table.title}}}"
        return f"{{{table.code}}} {rest}"

    def _codes(self, title: str) -> list[str]:
        """Return the other columns with codes and choices that say what a row is."""
        table = self._table
        out = {*table.references, *table.key, *table.texts}
        out.update(one.column for one in table.conditions if one.is_own)
        found = []
        for one in table.columns.values():
            # `{number} {subject}` has the number
            if one.name in out or one.name in title:
                continue
            is_code = one.role in ("code", "choice") and one.kind in ("text", "json")
            is_state = STATE_LABELS & {*words(one.name)}
            if is_code and not is_state and one.filled > 2 * known.FEW:
                found.append(one.name)
        return found[:5]

    def _filters(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the payload, and what people filter by of documents and their parts."""
        payload = self._rows.payload
        names = [*payload][: known.MAX_VALUES]
        indexes = {name: payload[name] for name in names if payload[name]}
        for part in parts:
            for name, kind in part.pop("payload_indexes", {}).items():
                indexes[f"{part['name']}.{name}"] = kind
        return {"payload": names, "payload_indexes": indexes}

    def _language(self) -> dict[str, Any]:
        """Return the languages of the column that names them, or else those of the texts, and which
        column has them if there are several."""
        for column in self._table.columns.values():
            if column.role != "locale" or column.filled < 1:
                continue
            found = filter(None, map(language_of, column.texts))
            codes = [*dict.fromkeys(found)]
            if not codes:
                return {}
            language = {"language": one_or_all(codes)}
            return language | ({"language_column": column.name} if len(codes) > 1 else {})
        languages = find_languages(self._rows.samples)
        if languages == ["english"]:
            return {}
        return {"language": one_or_all(languages)}

    def _part(self, part: Part, used: set[str]) -> dict[str, Any]:
        """Return the settings of a part."""
        child, far = part.table, part.far
        rows = _Rows(child, self._table.schema, self._rows.plan)
        on = _to_document(part, rows)
        if far is None:
            inline = _is_short(part)
            text = _text(part, rows, inline)
            called, wheres = child.own_name, [part.relation.where]
        else:
            inline = bool(far.parent.title)
            text = self._linked(rows, far, on)
            called, wheres = far.parent.own_name, [part.relation.where, far.where]
        name = free_name(identifier(called, "part"), used)
        used.add(name)
        ways = [one for one in (part.relation, part.up, far) if one]
        conditions = [one for one in child.conditions if one.through not in ways]
        made = {"name": name, **rows.place(child)}
        made["on"] = one_or_all([*on]) if [*on.values()] == self._table.key else on
        made["key"] = [] if inline else _open_key(child)
        made |= {**rows.where(conditions, *wheres), **self._order(child, on)}
        made |= {"text": text, "inline": inline, "format": rows.format, "joins": rows.joins}
        self._note(conditions, made)
        self._rows.samples += rows.samples
        indexes = {name: kind for name, kind in rows.payload.items() if kind}
        made |= {"payload": [*indexes], "payload_indexes": indexes}
        return {key: value for key, value in made.items() if value}

    def _linked(self, rows: _Rows, far: Relation, on: Iterable[str]) -> str | list[str]:
        """Return the text of what links name."""
        other = far.parent
        join = rows.join(far, required=True, **rows.where(other.conditions))
        names = rows.read(other, other.title_columns or other.prose, join)
        if len(names) != 1:
            return names
        if other.title:
            rows.payload[names[0]] = "keyword"
            return names
        for one in far.child.parents:
            label = one.parent
            if one.column in (far.column, *on) or label in rows.plan.few:
                continue
            if label.is_label and label.title in label.columns:
                # the name of an attribute before its value: `{field.name}: {value.text}`
                caption = rows.read(label, [label.title], rows.join(one))[0]
                rows.format.pop(caption, None)
                return f"{{{caption}}}: {{{names[0]}}}"
        return names

    def _order(self, table: Table, on: Iterable[str]) -> dict[str, Any]:
        """Return the columns by which the rows of a part are ordered."""
        places, times = [], []
        for column in table.columns.values():
            if column.filled <= known.NEARLY_ALL or column.name in on:
                continue
            if column.role == "time":
                times.append(column.name)
            elif column.role in ("number", "flag") and column.last_word in known.ORDERS:
                places.append(column.name)
        free = [name for name in table.key if name not in on]
        found = dict.fromkeys([*(places or times)[:1], *free])
        if not found:
            return {}
        return {"order_by": one_or_all([*found])}


# --- Parts ---


def _to_document(part: Part, rows: _Rows) -> dict[str, str]:
    """Return the key of the document by the columns of a part that name it. What is between is
    joined."""
    up = part.up
    if up is None:
        return dict(part.relation.pairs)
    # without what the document says anyway
    between = [one for one in part.relation.parent.conditions if one.through is not up]
    name = rows.join(part.relation, required=True, **rows.where(between))
    return {f"{name}.{here}": there for here, there in up.pairs}


def _is_short(part: Part) -> bool:
    """Return whether rows are as short as names, so that they stand in the text of their
    document."""
    child = part.table
    if child.prose or part.up:
        return False
    columns = [child.columns[name] for name in (*child.title_columns, *child.texts)]
    return sum(one.length for one in columns) < known.MIN_PROSE_CHARS


def _text(part: Part, rows: _Rows, inline: bool) -> str | list[str]:
    """Return the text of rows, and read their labels."""
    child = part.table
    rows.text += rows.read(child, [*child.title_columns, *child.texts])
    rows.add_labels(skip=part.relation.parent)
    captions = [name for name in rows.text if "." in name]
    own = [name for name in rows.text if "." not in name]
    if inline and len(captions) == len(own) == 1 and not rows.format:
        # `{field.name}: {value}`
        return f"{{{captions[0]}}}: {{{own[0]}}}"
    return rows.text


def _open_key(table: Table) -> str | list[str]:
    """Return the key with which a part can be named; [] if that has a secret."""
    if any(table.columns[name].role == "secret" for name in table.key):
        return []
    return one_or_all(table.key)


# --- Columns, conditions and names ---


def _filter_kind(column: Column) -> str | None:
    """Return the kind of the payload index of a column that people filter by, "" for none; None if
    they do not filter by it."""
    values = column.values
    if column.role in ("choice", "locale"):
        if column.distinct >= 1 or len({*column.texts}) < 2:
            return None
        return "keyword" if column.kind in ("text", "json") else ""
    if column.role == "time":
        if len({*values}) < 3:
            return None
        return "datetime" if column.kind == "time" else ""
    levels = {value for value in values if isinstance(value, int)}
    # a priority from 1 to 5
    is_level = 1 < len(levels) <= known.MAX_VALUES and len(levels) * 4 < len(values)
    if column.role != "number" or not is_level:
        return None
    return "integer" if all(isinstance(value, int | None) for value in values) else ""


def _with_conditions(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the settings of an index, of its parts and of their joins, that have a condition."""
    for rows in (settings, *settings.get("parts", ())):
        for one in (rows, *rows.get("joins", {}).values()):
            if one.get("where"):
                yield one


def one_or_all(names: Sequence[str]) -> str | list[str]:
    """Return the only name, or else all of them."""
    if len(names) == 1:
        return names[0]
    return list(names)


def free_name(wanted: str, taken: Iterable[str], separator: str = "_") -> str:
    """Return a name that is not taken, however it is written: the wanted one, or else with a number
    after it, from 2."""
    lower = {name.lower() for name in taken}
    name, number = wanted, 1
    while name.lower() in lower:
        number += 1
        name = f"{wanted}{separator}{number}"
    return name
