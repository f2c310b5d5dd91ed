"""The settings of an index: text, title, parts, joins, payload and conditions, and why."""

from __future__ import annotations

from itertools import count
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

    from rag_index.first_run.schema.rulings import Rulings
    from rag_index.first_run.schema.tables import Condition, Relation, Table

MAX_NAME_CHARS = 80
STATE_LABELS = known.ASKED | known.BROUGHT | {"priority", "kind"}
"""Words of columns whose labels people filter by, but which say little about what a row is
about."""


class _Rows:
    """Rows that are documents or parts, as their settings come together."""

    def __init__(self, table: Table, schema: str | None, plan: Plan) -> None:
        self.table, self.schema, self.plan, self.taken = table, schema, plan, {*table.columns}
        self.text: list[str] = []
        self.format: dict[str, str] = {}
        self.joins: dict[str, dict[str, Any]] = {}
        self.payload: dict[str, str] = {}
        """Columns with the kind of their payload index; "" without one."""
        self.joined: set[Table] = {table}
        self.samples: list[str] = []

    def place(self, table: Table) -> dict[str, Any]:
        """Return the keys that name a table: its schema is that of the index, if none is named."""
        schema = table.schema
        return {"table": table.own_name} | (
            {} if schema == self.schema else {"schema": schema or "public"}
        )

    def read(self, table: Table, columns: Sequence[str], through: str = "") -> list[str]:
        """Note how columns are written, and return what the settings call them: `through` is a
        join."""
        names = [f"{through}.{column}" if through else column for column in columns]
        for name, column in zip(names, columns, strict=True):
            found = table.columns[column]
            self.plan.read.add((table, column))
            self.samples += found.texts[:30]
            self.format |= {name: found.form} if found.form != "plain" else {}
        return names

    def join(self, relation: Relation, through: str = "", **more: Any) -> str:
        """Join the row that a relation names, of its own row or that of the join `through`; return
        the name."""
        parent = relation.parent
        skip = known.KEY_WORDS | {*words(parent.key[0])}
        stem = "_".join(word for word in words(relation.column) if word not in skip)
        wanted = [parent.own_name, f"{stem}_row"]
        if stem and relation.column not in relation.child.key:
            wanted = [stem, f"{stem}_{parent.noun[-1]}", *wanted]
        taken = {*map(str.lower, self.taken)}
        free = [name for one in wanted if (name := identifier(one, "row")).lower() not in taken]
        name = free[0] if free else free_name(identifier(wanted[0], "row"), self.taken)
        self.taken.add(name)
        on = {there: f"{through}.{here}" if through else here for here, there in relation.pairs}
        self.joins[name] = {**self.place(parent), "on": on["id"] if [*on] == ["id"] else on, **more}
        self.joined.add(parent)
        self.plan.read.add((parent, ""))
        return name

    def add_labels(self, skip: Table | None = None) -> None:
        """Join what rows name: it is a text, if it says what a row is about, and people filter by
        it."""
        for one in self.table.parents:
            parent, named = one.parent, one.parent.title and one.parent.rows > 1
            says = named or (
                parent.prose and not parent.machine and (one.extends or len(parent.children) < 2)
            )
            if (
                parent is skip
                or parent in self.plan.few
                or one.type_column
                or one.is_pointer
                or one.share < known.HARDLY
            ):
                continue
            if (
                not says
                or not self._may_join(one)
                or (parent in self.joined - {self.table} and not one.writes)
            ):
                continue
            # What a hidden row hides is not read at all, but for a row that names one of its own
            # table.
            is_enforced = parent is not self.table
            hiding = [told for told in parent.conditions if not (is_enforced and passes(one, told))]
            name = self.join(one, **self.where(hiding))
            titles = self.read(parent, parent.title_columns, name)
            few = parent.is_people or 2 * parent.rows <= self.table.rows
            self.payload |= dict.fromkeys(titles[:-1], "") | dict.fromkeys(
                titles[-1:], "keyword" if few else ""
            )
            state = STATE_LABELS & {*words(one.column), *parent.noun[-1:]} and not parent.prose
            self.text += [] if state else titles
            if not parent.title:
                self.text += self.read(parent, parent.prose, name)
            for over in parent.parents if not parent.prose and not parent.is_people else ():
                self._add_name_above(over, name)
            for key in {*titles} - {*self.text}:
                self.format.pop(key, None)

    def _may_join(self, one: Relation) -> bool:
        return one.is_whole and len(self.joins) < known.MAX_JOINS

    def _add_name_above(self, one: Relation, through: str) -> None:
        """Join what a joined row names in its turn: the artist of the album of a track."""
        over = one.parent
        again = (
            over in self.joined
            or over in self.plan.few
            or over.is_people
            or over.is_label
            or one.type_column
        )
        if not again and over.title and not over.prose and self._may_join(one):
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
            levels = {value for value in one.values if isinstance(value, int)}
            if name in used or one.filled < 2 * known.FEW or one.kind == "bytes":
                continue
            if one.role in ("choice", "locale") and one.distinct < 1 and len({*one.texts}) > 1:
                self.payload[name] = "keyword" if one.kind in ("text", "json") else ""
            elif one.role == "time" and len({*one.values}) > 2:
                self.payload[name] = "datetime" if one.kind == "time" else ""
            elif (
                one.role == "number"
                and 1 < len(levels) <= known.MAX_VALUES
                and len(levels) * 4 < len(one.values)
            ):
                self.payload[name] = (
                    "integer" if all(isinstance(n, int | None) for n in one.values) else ""
                )

    def where(self, conditions: Sequence[Condition], *more: str) -> dict[str, str]:
        """Return the condition for the rows that may be shown."""
        told = " AND ".join(filter(None, [*more, *dict.fromkeys(one.sql for one in conditions)]))
        return {"where": told} if told else {}


class IndexMaker:
    """Makes the settings of one index."""

    def __init__(self, table: Table, plan: Plan, taken: set[str], rulings: Rulings) -> None:
        self._table, self._parts, self._rulings = table, plan.documents[table], rulings
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
            "text": rows.text,
            "format": rows.format,
            **self._filters(parts),
            **self._language(),
            "joins": rows.joins,
            "parts": parts,
        }
        self._note(inherited, settings)
        self._decide(settings)
        made = {key: value for key, value in settings.items() if value or key == "payload"}
        return ProposedIndex(self._name(), table.name, made, self.reasons, self._age())

    def _decide(self, settings: dict[str, Any]) -> None:
        """Add the decisions of the index: on its own columns, and on others that its conditions
        refer to."""
        own = {one.sql for one in self._table.conditions if one.is_own}
        for ruling in [one for one in self._rulings.found if one.is_decision]:
            one = ruling.candidate
            token = f"$visible({one.id})"
            is_own = token in own
            own_name = ".".join(filter(None, (make_id(one.column), one.key)))
            name = own_name if is_own else one.id
            used = [rows for rows in _with_conditions(settings) if token in rows["where"]]
            for rows in used:
                before = rows["where"]
                rows["where"] = before.replace(token, f"$visible({name})")
                self.reasons |= (
                    {rows["where"]: self.reasons[before]} if before in self.reasons else {}
                )
            if is_own or used:
                settings["visible"][name] = self._rulings.settings_of(one.id)
                if one.says:
                    self.reasons[f"visible.{name}"] = f"hides rows if {one.says}: {one.why}"

    def _age(self) -> str:
        """Return the column whose greatest values the newest rows have."""
        times = [one for one in self._table.columns.values() if one.role == one.kind == "time"]
        times = [one for one in times if one.filled >= known.NEARLY_ALL]
        times.sort(key=lambda one: "updated" not in words(one.name))
        key = self._table.key[0]
        return key if self._table.columns[key].kind == "number" or not times else times[0].name

    def _name(self) -> str:
        called = words(self._table.own_name)[-len(self._table.noun) :]
        base = slugify("-".join(called), max_length=MAX_NAME_CHARS) or "documents"  # of any script
        name = free_name(base, self._taken, "-")
        self._taken.add(name)
        return name

    def _note(self, conditions: Sequence[Condition], settings: dict[str, Any]) -> None:
        """Note why rows are left out."""
        if settings.get("where"):
            said = dict.fromkeys(f"hides rows if {one.says}" for one in conditions)
            self.reasons[settings["where"]] = "; ".join(said)

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
        out = {
            *table.references,
            *table.key,
            *table.texts,
            *(one.column for one in table.conditions if one.is_own),
        }
        found = [
            one for one in table.columns.values() if one.name not in out and one.name not in title
        ]
        found = [
            one for one in found if one.role in ("code", "choice") and one.filled > 2 * known.FEW
        ]
        return [
            one.name
            for one in found
            if one.kind in ("text", "json") and not STATE_LABELS & {*words(one.name)}
        ][:5]

    def _filters(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the payload, and what people filter by of documents and their parts."""
        payload = dict([*self._rows.payload.items()][: known.MAX_VALUES])
        indexes = {name: kind for name, kind in payload.items() if kind}
        for part in parts:
            kinds = part.pop("payload_indexes", {})
            label = part.get("name") or part["table"]
            indexes |= {f"{label}.{name}": kind for name, kind in kinds.items() if kind}
        return {"payload": [*payload], "payload_indexes": indexes}

    def _language(self) -> dict[str, Any]:
        columns = [
            one for one in self._table.columns.values() if one.role == "locale" and one.filled == 1
        ]
        if columns:
            codes = [*dict.fromkeys(filter(None, map(language_of, columns[0].texts)))]
            more = {"language_column": columns[0].name} if len(codes) > 1 else {}
            return {"language": one_or_all(codes), **more} if codes else {}
        found = find_languages(self._rows.samples)
        return {} if found == ["english"] else {"language": one_or_all(found)}

    def _part(self, one: Part, used: set[str]) -> dict[str, Any]:
        """Return the settings of a part."""
        child, far = one.table, one.far
        rows = _Rows(child, self._table.schema, self._rows.plan)
        on = dict(one.relation.pairs)
        conditions = [
            c
            for c in child.conditions
            if c.through is None or c.through not in (one.relation, one.up, far)
        ]
        text: str | list[str]
        if one.up is not None:  # through the row between, without what its document says anyway
            between = [
                rule for rule in one.relation.parent.conditions if rule.through is not one.up
            ]
            name = rows.join(one.relation, required=True, **rows.where(between))
            on = {f"{name}.{here}": there for here, there in one.up.pairs}
        if far is not None:
            text, inline = self._linked(rows, far, on), bool(far.parent.title)
        else:
            read = [*child.title_columns, *child.texts]
            rows.text += rows.read(child, read)
            rows.add_labels(skip=one.relation.parent)
            short = sum(child.columns[name].length for name in read) < known.MIN_PROSE_CHARS
            text, inline = rows.text, short and not child.prose and one.up is None
            captions = [name for name in text if "." in name]
            if len(text) == 2 and len(captions) == 1 and not rows.format and inline:
                text = (
                    f"{{{captions[0]}}}: {{{next(name for name in text if name not in captions)}}}"
                )
        label = free_name(identifier(far.parent.own_name if far else child.own_name, "part"), used)
        used.add(label)
        open_key = (
            child.key
            and not inline
            and all(child.columns[name].role != "secret" for name in child.key)
        )
        made = {
            "name": label,
            **rows.place(child),
            "on": one_or_all([*on]) if [*on.values()] == self._table.key else on,
            "key": one_or_all(child.key) if open_key else "",
            **rows.where(
                conditions,
                one.relation.where,
                far.where if far and far.where != one.relation.where else "",
            ),
            **self._order(child, on),
            "text": text,
            "inline": inline,
            "format": rows.format,
            "joins": rows.joins,
        }
        self._note(conditions, made)
        self._rows.samples += rows.samples
        kinds = {name: kind for name, kind in rows.payload.items() if kind}
        named = {
            name: kind
            for name, kind in kinds.items()
            if inline or name.partition(".")[0] in rows.joins
        }
        found = {key: value for key, value in made.items() if value}
        return found | {"payload": [*named], "payload_indexes": named} if named else found

    def _linked(self, rows: _Rows, far: Relation, on: Iterable[str]) -> str | list[str]:
        """Return the text of what links name."""
        other, link = far.parent, far.child
        name = rows.join(far, required=True, **rows.where(other.conditions))
        names = rows.read(other, other.title_columns or other.prose, name)
        captions = [
            one
            for one in link.parents
            if one.parent.title in one.parent.columns and one.parent.is_label
        ]
        captions = [
            one
            for one in captions
            if one.column not in (far.column, *on) and one.parent not in rows.plan.few
        ]
        if (
            not other.title and captions and len(names) == 1
        ):  # the name of an attribute before its value
            caption = rows.read(
                captions[0].parent, [captions[0].parent.title], rows.join(captions[0])
            )
            rows.format.pop(caption[0], None)
            return f"{{{caption[0]}}}: {{{names[0]}}}"
        if len(names) == 1 and other.title:
            rows.payload[names[0]] = "keyword"
        return names

    def _order(self, table: Table, on: Iterable[str]) -> dict[str, Any]:
        """Return the columns by which the rows of a part are ordered."""
        columns = [
            one
            for one in table.columns.values()
            if one.filled > known.NEARLY_ALL and one.name not in on
        ]
        places = [
            one.name
            for one in columns
            if one.role in ("number", "flag") and one.last_word in known.ORDERS
        ]
        times = [one.name for one in columns if one.role == "time"]
        free = [name for name in table.key if name not in on]
        found = [*(places or times)[:1], *free]
        return {"order_by": one_or_all(list(dict.fromkeys(found)))} if found else {}


def _with_conditions(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the settings of an index, of its parts and of their joins, that have a condition."""
    for rows in (settings, *settings.get("parts", ())):
        yield from (one for one in (rows, *rows.get("joins", {}).values()) if one.get("where"))


def one_or_all(names: Sequence[str]) -> str | list[str]:
    """Return the only name, or else all of them."""
    return names[0] if len(names) == 1 else list(names)


def free_name(wanted: str, taken: Iterable[str], mark: str = "_") -> str:
    """Return a name that is not taken: the wanted one, or else with a number after the mark."""
    lower = {name.lower() for name in taken}
    return next(
        name
        for n in count(1)
        if (name := f"{wanted}{mark}{n}" if n > 1 else wanted).lower() not in lower
    )
