"""A table as it is understood: what its rows are called, what they say, how they came, and which of
them are hidden."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rag_index.components.sources.secret_values import looks_secret
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import make_id
from rag_index.first_run.schema.columns import Column, is_template, names_for_programs
from rag_index.first_run.schema.words import singular, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


MAX_ROWS = 20_000
"""Rows of a table that are counted at most."""
NOTHING = (None, "", 0, "0", -1, "-1")
"""Values that name no row of another table."""


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What rows of a table must meet to be shown, by a column or by what they refer to."""

    table: Table
    """The table whose rows are left out."""
    sql: str
    """In SQL, with `$visible(ID)` for what a candidate decides."""
    says: str
    """Why the others are hidden: `is_private is yes`."""
    column: str = ""
    """The column that decides, or refers to what is hidden."""
    is_own: bool = False
    """Whether it is the decision about a column of the table itself, which the settings name."""
    shown_values: int = 0
    """Of such a decision, how many values are shown: people filter by a column with several."""
    reaches: bool = True
    """Whether what belongs to a hidden row is hidden, too."""
    is_whole: bool = False
    """Whether it says the same as all others of its table, and of what is above them."""
    bans: bool = False
    """Whether it says of an account that nobody may see what it wrote."""
    through: Relation | None = None
    """What refers to a hidden row, if another table hides this one."""


@dataclass(frozen=True, eq=False)
class Relation:
    """Columns of a table that name a row of another one, for one value of a type column if there is
    one."""

    child: Table
    parent: Table
    pairs: tuple[tuple[str, str], ...]
    share: float = 1.0
    """The share of the child's rows that name one."""
    type_column: str = ""
    type_value: Any = None
    may_refer: bool = False
    """Whether nobody declared that rows belong to the parent: a name with a role, or values alone,
    suggest it."""
    prefix: str = ""
    """What stands before the key in the values: `article:` in `article:4`."""
    cast: str = ""
    """The type of a text in SQL, with which the key is compared then."""

    @property
    def column(self) -> str:
        """Return the first column of the child."""
        return self.pairs[0][0]

    @property
    def where(self) -> str:
        """Return the condition on the type, in SQL; "" if there is none."""
        if not self.type_column:
            return ""
        return f"{self.child.columns[self.type_column].sql} = {literal(self.type_value)}"

    @property
    def is_whole(self) -> bool:
        """Return whether the whole key of the parent is named."""
        key = self.parent.key
        named = {there for _, there in self.pairs}
        return len(self.pairs) == len(key) and named == {*key}

    @property
    def extends(self) -> bool:
        """Return whether the child has at most one row for each of the parent."""
        columns = [here for here, _ in self.pairs]
        return columns == self.child.key

    @cached_property
    def named(self) -> list[Any]:
        """Return the sampled values, or tuples of them, that name a row."""
        columns = [here for here, _ in self.pairs]
        rows = [row for row in self.child.rows_of(*columns) if row[0] not in NOTHING]
        if len(columns) > 1:
            return rows
        return [value for (value,) in rows]

    @property
    def is_crowd(self) -> bool:
        """Return whether hundreds of rows name each: what has them contains them."""
        if self.child.rows > known.CROWD * self.parent.rows:
            return True
        distinct = {*self.named}
        return len(self.named) > known.CROWD * len(distinct)

    @property
    def gives_values(self) -> bool:
        """Return whether the child links rows with values that have no name, such as those of
        fields."""
        parents = [relation.parent for relation in self.child.parents]
        return any(parent.is_value for parent in parents)

    @property
    def is_pointer(self) -> bool:
        """Return whether it names one of the rows that belong to this one, such as the last post of
        a topic."""
        named = words(self.column)
        return not known.POINTERS.isdisjoint(named)

    @property
    def belongs(self) -> bool:
        """Return whether rows belong to what they refer to.

        A pointer does not say so, nor a column with a role of its own (`agent_representation_id`),
        nor a list of all kinds.
        """
        named: set[str] = set()
        for here, _ in self.pairs:
            named.update(map(singular, words(here)))
        named.discard("id")
        is_called = self.parent.noun[-1] in named
        has_role = len(self.pairs) == 1 and len(named) > 1 and not is_called
        return not (self.is_pointer or has_role or self.is_list)

    @property
    def is_list(self) -> bool:
        """Return whether the parent is a list of all kinds, to which rows of some tables refer by
        several columns."""
        others = [other.child for other in self.parent.children if not other.is_pointer]
        counts = Counter(others)
        several = [count for count in counts.values() if count > 1]
        return len(several) >= known.MIN_ROWS

    def of_hidden(self, conditions: Sequence[Condition]) -> str:
        """Return in SQL that a row refers to a hidden row of its parent.

        Args:
            conditions: What the rows of the parent must meet to be shown.
        """
        columns = [self.child.columns[here].sql for here, _ in self.pairs]
        keys = [self.parent.columns[there].sql for _, there in self.pairs]
        left = ", ".join(columns)
        if len(columns) > 1:
            left = f"({left})"
        where = self.where
        if self.prefix:
            # `article:4`: the rest of the text is the key
            size = len(self.prefix)
            where = f"SUBSTR({columns[0]}, 1, {size}) = {literal(self.prefix)}"
            left = f"SUBSTR({columns[0]}, {size + 1})"
            keys = [f"CAST({keys[0]} AS {self.cast})"]
        shown = " AND ".join(one.sql for one in conditions)
        rows = f"{self.parent.sql} WHERE ({shown}) IS NOT TRUE"
        inner = f"SELECT {', '.join(keys)} FROM {rows}"
        named = f"{left} IN ({inner})"
        return f"({where} AND {named})" if where else named

    @property
    def writes(self) -> bool:
        """Return whether it names a person to whom the row belongs."""
        if not self.parent.is_people:
            return False
        # `user_profile` says more of the person
        return not {*self.parent.noun} & {*self.child.noun}


@dataclass(eq=False, repr=False)
class Table:
    """A table with a sample of its rows, and what is understood of it."""

    schema: str | None
    """None for the schema that is meant if none is named."""
    own_name: str
    """The name without the schema."""
    key: list[str]
    """The primary key, or else columns by which rows differ, none of them NULL."""
    columns: dict[str, Column]
    declared: Sequence[Mapping[str, Any]]
    """Its declared foreign keys, as SQLAlchemy has them."""
    sql: str
    """The name as it stands in SQL, with its schema."""
    rows: int = 0
    """The number of rows; about, if there are more than `MAX_ROWS`."""
    problem: str = ""
    """Why its rows could not be read."""
    noun: tuple[str, ...] = ()
    """What its rows are called, in the singular and without a prefix that all tables have."""
    parents: list[Relation] = field(init=False, default_factory=list)
    children: list[Relation] = field(init=False, default_factory=list)
    conditions: list[Condition] = field(init=False, default_factory=list)

    @property
    def counted(self) -> bool:
        """Return whether the number of rows is exact."""
        return self.rows <= MAX_ROWS

    @property
    def is_whole(self) -> bool:
        """Return whether all rows were looked at."""
        return self.sampled >= self.rows

    @property
    def sampled(self) -> int:
        """Return how many rows were looked at."""
        sizes = [len(column.values) for column in self.columns.values()]
        return max(sizes, default=0)

    @property
    def name(self) -> str:
        """Return the name with its schema, if there is one."""
        if self.schema:
            return f"{self.schema}.{self.own_name}"
        return self.own_name

    @property
    def id(self) -> str:
        """Return the name as a person's answers have it."""
        return self.id_of()

    def id_of(self, *names: str) -> str:
        """Return the id of a column, or of a key in its JSON."""
        schema = [self.schema] if self.schema else []
        return make_id(*schema, self.own_name, *names)

    def forget(self) -> None:
        """Forget what was understood of columns that have changed since."""
        for name, found in vars(type(self)).items():
            if isinstance(found, cached_property):
                self.__dict__.pop(name, None)

    def rows_of(self, *names: str) -> list[tuple[Any, ...]]:
        """Return the sampled values of some columns, a tuple for each row."""
        values = [self.columns[name].values for name in names]
        return list(zip(*values, strict=True))

    @cached_property
    def named(self) -> dict[str, tuple[str, ...]]:
        """Return the words of the name of each column, without a prefix that most of them have."""
        found = {name: words(name) for name in self.columns}
        firsts = Counter(named[0] for named in found.values())
        for prefix, count in firsts.most_common(1):
            # `is_open`, `is_private`
            if prefix in ("is", "has") or not 2 * count > len(found) > 2:
                return found
            # `post_title`, `post_body`
            for name, named in found.items():
                if named[0] == prefix and len(named) > 1:
                    found[name] = named[1:]
        return found

    @cached_property
    def references(self) -> set[str]:
        """Return the columns that name rows of tables, or of which table a row is."""
        found: set[str] = set()
        for relation in self.parents:
            found.update(column for column, _ in relation.pairs)
            found |= {relation.type_column} - {""}
        return found

    @property
    def below(self) -> set[Table]:
        """Return the table and those whose rows may belong to its rows, at any number of steps."""
        found, todo = {self}, [self]
        while todo:
            for relation in todo.pop().children:
                # what links name carries their labels
                named = {far.parent for far in relation.child.parents}
                near = {relation.child, *named} - found
                found |= near
                todo += near
        return found

    @cached_property
    def is_accounts(self) -> bool:
        """Return whether rows are people, or programs, that log in."""
        # people look for customers, though they may log in
        if known.CUSTOMERS & {*self.noun}:
            return False
        has_mail = any(self._is_mail(one) for one in self.columns.values())
        for column in self.columns.values():
            if column.role != "secret" or not _is_password(column.name):
                continue
            has_secrets = has_mail and any(map(looks_secret, column.values))
            if column.filled > 2 * known.FEW or (column.filled and has_secrets):
                return True
        return False

    def _is_mail(self, column: Column) -> bool:
        named = words(column.name)
        is_called = "mail" in named or "email" in named
        return is_called and column.role == "personal"

    @cached_property
    def _first_and_last(self) -> list[str]:
        """Return the columns with the first and the last name of a person; [] if there are not
        both."""
        named = {"".join(words(name)): name for name in self.columns}
        found = []
        for called in (known.FIRST_NAME, known.LAST_NAME):
            name = named.get("".join(called))
            if name is None:
                return []
            found.append(name)
        return found

    @cached_property
    def is_people(self) -> bool:
        """Return whether rows are persons."""
        if self.is_accounts or self._first_and_last:
            return True
        return bool(known.PERSONS & {*self.noun[-2:]}) and not self.prose

    @cached_property
    def title(self) -> str:
        """Return the column, or the template of columns, that says what a row is called; "" if none
        does."""
        if self._first_and_last:
            return " ".join(f"{{{name}}}" for name in self._first_and_last)
        free = [one for one in self.columns.values() if self._may_be_title(one)]
        called = [one for one in free if one.last_word in known.TITLES]
        if not called:
            # no name says so: names that most rows have, and that differ
            other = {"by", "type", "status", "code", *known.KEY_WORDS}
            named = [one for one in free if one.role == "name" and one.last_word not in other]
            named = [one for one in named if one.distinct >= known.HALF]
            called = [one for one in named if one.filled >= known.HALF]
        if called:
            return min(called, key=self._title_rank).name
        # lines without the end of a sentence
        for column in free:
            is_usual = column.distinct >= known.HALF and column.filled >= known.HALF
            is_line = column.role == "prose" and column.form == "plain" and column.length <= 80
            if is_usual and is_line and _are_headings(column.texts):
                return column.name
        return ""

    def _may_be_title(self, column: Column) -> bool:
        if not column.is_text or column.name in self.references or column.filled < known.SOME:
            return False
        forms = ("plain", "html", "auto", "bbcode")
        return column.length <= known.MAX_NAME_CHARS and column.form in forms

    def _title_rank(self, one: Column) -> tuple[Any, ...]:
        """Return the smaller the likelier: not the title of a person, not the same again and again,
        by its words."""
        last = one.last_word
        order = (*known.TITLES, last)
        # `person.title` is "Dr"
        is_form = last == "title" and not known.PERSONS.isdisjoint(self.noun)
        repeats = one.distinct < 2 * known.FEW
        length = len(self.named[one.name])
        return is_form, repeats, order.index(last), length

    @cached_property
    def title_columns(self) -> list[str]:
        """Return the columns that the title consists of."""
        if self.title in self.columns:  # whose name may have braces
            return [self.title]
        return re.findall(r"\{([^{}]+)\}", self.title)

    @cached_property
    def code(self) -> str:
        """Return the column with the code by which people know a row; "" if there is none."""
        out = {*self.references, *self.title_columns, *self.key}
        if self.rows <= known.MIN_ROWS:
            return ""
        for column in self.columns.values():
            # `order_no`
            if column.name in out or known.CODE_NAMES.isdisjoint(words(column.name)):
                continue
            is_short = column.length <= known.MAX_CODE_CHARS
            is_unique = column.distinct > known.NEARLY_ALL and column.filled > known.HALF
            if is_short and is_unique and column.role in ("code", "name", "number"):
                return column.name
        return ""

    @cached_property
    def texts(self) -> list[str]:
        """Return the columns that people read beside the title, prose first, without those that say
        the same again."""
        out = {*self.title_columns, *self.references, *self.key}
        found = [one for one in self.columns.values() if one.is_text and one.name not in out]
        found.sort(key=lambda column: column.role != "prose")
        shown_heads = [self._heads(name) for name in self.title_columns]
        kept: list[str] = []
        for column in found:
            if len(kept) == known.MAX_TEXTS:
                break
            heads = self._heads(column.name)
            # `body_html` beside `body`
            if not any(_says_again(heads, other) for other in shown_heads):
                kept.append(column.name)
                shown_heads.append(heads)
        return kept

    def _heads(self, name: str) -> list[str]:
        return [*map(_head, self.columns[name].values)]

    @cached_property
    def prose(self) -> list[str]:
        """Return the columns with prose, beside the title."""
        columns = [self.columns[name] for name in self.texts]
        return [column.name for column in columns if column.role == "prose"]

    @cached_property
    def is_value(self) -> bool:
        """Return whether rows are texts without a name, of which nothing else is told, such as
        values of fields."""
        if self.title or not self.prose:
            return False
        return not any(one.child.prose for one in self.children)

    @cached_property
    def sentence_chars(self) -> float:
        """Return how many characters of its prose stand in sentences, for each row on average."""
        prose = [self.columns[name] for name in self.prose]
        return sum(column.sentence_chars * column.filled for column in prose)

    @cached_property
    def chars(self) -> float:
        """Return about how many characters people read in all rows."""
        read = [self.columns[name] for name in (*self.texts, *self.title_columns)]
        chars = sum(one.length * one.filled for one in read)
        return self.rows * chars

    @cached_property
    def written(self) -> bool:
        """Return whether rows came one by one: at different minutes, as one of their times says."""
        for column in self.columns.values():
            if not column.is_time:
                continue
            times = [value for value in column.values if value not in NOTHING]
            minutes = {str(time)[:16] for time in times}
            if len(minutes) >= max(known.MIN_ROWS, 2 * known.FEW * len(times)):
                return True
        return False

    @cached_property
    def is_label(self) -> bool:
        """Return whether it is a small list of names that other rows carry."""
        if self.rows > known.MAX_CHOICES or not self.children:
            return False
        if self.texts or self.written:
            return False
        length = sum(self.columns[name].length for name in self.title_columns)
        # rows that have no name of their own tell of it
        telling = [one for one in self.children if one.child.prose and not one.child.title]
        is_told = any(not one.is_crowd for one in telling)
        return length <= known.MAX_CODE_CHARS or not is_told

    @cached_property
    def told(self) -> int:
        """Return how many columns say something of rows that people may ask for."""
        out = {*self.references, *self.key}
        roles = ("name", "choice", "time", "number", "prose")
        told = [one for one in self.columns.values() if one.role in roles and one.name not in out]
        usual = [column for column in told if column.filled > known.HALF]
        return len(usual)

    @cached_property
    def repeats(self) -> bool:
        """Return whether texts are the same again and again but for numbers, as programs write
        them."""
        names = [*self.texts, *self.title_columns]
        if not names:
            return False
        forms = []
        for row in self.rows_of(*names):
            text = " ".join(str(value or "") for value in row)
            letters = re.sub(r"[\W\d_]+", " ", text).strip().lower()
            forms += [letters] if letters else []
        return len(forms) > known.MAX_CODE_CHARS and len({*forms}) < known.SOME * len(forms)

    @cached_property
    def is_used(self) -> bool:
        """Return whether rows of other tables name a good share of its rows: of a list that was
        brought, few are."""
        least = min(known.CROWD, known.SOME * self.rows)
        for relation in self.children:
            if relation.child is self:
                continue
            named = {*relation.named}
            if len(named) >= least:
                return True
        return False

    @cached_property
    def is_settings(self) -> bool:
        """Return whether rows are names with values, and belong to nothing that has a name."""
        last = {words(name)[-1]: one for name, one in self.columns.items()}
        named = [column for word, column in last.items() if word in known.NAME_KEYS]
        if "value" not in last or not named:
            return False
        programs = known.MACHINE | known.BROUGHT
        for owner in (relation.parent for relation in self.parents):
            is_named = owner.title and programs.isdisjoint(owner.noun)
            # the fields of a product say what it is; `user_setting` says nothing of the person
            if is_named and not (owner.is_accounts or owner.is_label):
                return False
        return len(self.columns) <= known.MANY_TOLD or any(map(names_for_programs, named))

    @cached_property
    def machine(self) -> str:
        """Return why its rows are for programs, to be read after its name; "" if they may be for
        people."""
        first = self.columns[self.prose[0]] if self.prose else None
        title = self.columns.get(self.title)
        if self.is_settings:
            return "has names with values"
        noun = {*self.noun}
        is_log = any(map(known.LOGS.fullmatch, (*self.noun, "".join(self.noun[-2:]))))
        # people look for a job, and in the log of a ship
        is_doubtful = known.DOUBTFUL & noun and not (title and first)
        if known.MACHINE & noun or is_log or is_doubtful:
            return "is for programs, by its name"
        hosts = {"ip", "host", "hostname", "referer"}
        if self.repeats and any(hosts.intersection(words(name)) for name in self.columns):
            return "is a log of programs"
        if first and is_template(first):
            return "has templates that programs fill in"
        if title and not first and names_for_programs(title):
            return "has names that programs give"
        is_own = any(relation.parent.is_accounts for relation in self.parents)
        is_used = self.is_used or self.written or is_own
        if not is_used and self.sentence_chars < known.PROSE and self._has_slugs():
            return "came with the application: programs know its rows by a name"
        return ""

    def _has_slugs(self) -> bool:
        """Return whether each row has a name for programs that is no address of a page."""
        for column in self.columns.values():
            is_each = min(column.distinct, column.filled) >= known.NEARLY_ALL
            is_name = column.role in ("name", "code", "other") and names_for_programs(column)
            if is_each and is_name and not self._is_address(column):
                return True
        return False

    def _is_address(self, one: Column) -> bool:
        """Return whether names are made of the titles, as those in addresses are: people read what
        has one."""
        if "slug" in words(one.name):
            return True
        if not self.title_columns:
            return False
        title_column = self.title_columns[0]
        if names_for_programs(self.columns[title_column]):
            return False
        count, same = 0, 0
        for row in self.rows_of(one.name, title_column):
            if not all(row):
                continue
            # `the-bridge-of-the-river` of "The bridge of the river"
            name, title = map(_head, row)
            count += 1
            same += title[:12] in name or name[:12] in title
        return same > known.HALF * count


def _is_password(name: str) -> bool:
    named = words(name)
    passwords = {"password", "passwd", "pass", "pwd", "pw", "passhash"}
    # `pass_hash`
    return not passwords.isdisjoint((*named, "".join(named)))


def unique_names(table: Table) -> list[str]:
    """Return the columns with names or codes that only one row of a table has, beside its key."""
    found = []
    for column in table.columns.values():
        is_name = column.kind == "text" and column.role not in ("prose", "time", "secret")
        is_unique = column.distinct == 1 and column.filled >= known.MIN_FOUND
        if is_name and is_unique and column.name not in table.key and table.rows >= known.MIN_ROWS:
            found.append(column.name)
    return found


def is_random(values: Iterable[Any]) -> bool:
    """Return whether keys are so long that nothing else has the same by chance: UUIDs, digests,
    large numbers."""
    texts = [str(value) for value in values][:50]
    distinct = len({*texts})
    lengths = [*map(len, texts)]
    # 7034982115
    if all(text.isdigit() for text in texts):
        return distinct > 2 and min(lengths) >= known.MAX_JOINS
    if distinct < 2 or any(" " in text for text in texts):
        return False
    if sum(lengths) < known.MIN_RANDOM_CHARS * len(texts):
        return False
    # a word without a digit is a name, unless it is as long as `ad8bcbfa…`
    return all(re.search(r"\d", text) or len(text) > 20 for text in texts)


def _are_headings(texts: Sequence[str]) -> bool:
    """Return whether nearly all texts are lines without the end of a sentence."""
    lines = 0
    for text in texts:
        is_sentence = text[-1] in ".!?;:。"
        lines += not is_sentence and "\n" not in text
    return lines >= known.MIN_FOUND * len(texts)


def _says_again(heads: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether most values of a column begin as those of another one of the same row."""
    filled, equal = 0, 0
    for head, other in zip(heads, others, strict=True):
        if head:
            filled += 1
            equal += head == other
    return filled > 0 and equal >= known.MIN_FOUND * filled


def _head(value: Any) -> str:
    text = str(value or "")[:400]
    letters = re.sub(r"<[^<>]*>|[\W_]", "", text)
    return letters.lower()[:80]


def is_none_of(value: str, rows: str) -> str:
    """Return in SQL that a value is none of some others, given as a list or a query.

    It is true of NULL, and of any other value beside which the query returns NULL: `NOT IN` says
    neither yes nor no of them, and would hide the row.
    """
    return f"({value} IN ({rows})) IS NOT TRUE"


def listed(values: Iterable[Any]) -> str:
    """Return values as they stand in a list of SQL."""
    return ", ".join(map(literal, values))


def literal(value: Any) -> str:
    """Return a value as it stands in SQL."""
    if isinstance(value, bool | int | float):
        return str(value)
    text = str(value).replace("'", "''")
    return f"'{text}'"
