"""What a column holds, by its name and a sample of its values: prose, titles, codes, flags, secrets, personal data."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from rag_index.components.sources.secret_values import PLACE, UUID, looks_secret
from rag_index.components.sources.text import NotText, find_format, read_text
from rag_index.core.documents.text_languages import LOCALE
from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.core.settings.parts import FILE
from rag_index.first_run.schema import vocabulary as vocab

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rag_index.first_run.schema.catalog import Column, DatabaseTable


Role = Literal[
    "prose", "short", "code", "choice", "flag", "time", "number", "locale", "secret", "personal", "internal", "empty",
    "other",
]  # fmt: skip
"""What a column is for: `short` are names and titles, `choice` is one of few values, `code` has no words."""
NEARLY_ALL, MOST, FEW = 0.9, 0.6, 0.3
"""Shares of rows or values: a rule holds above the first two, or below the last."""
MIN_PROSE_CHARS = 20
"""The minimum average length of texts that are not named as such."""
MAX_TITLE_CHARS = 160
MAX_CODE_CHARS = 24
"""The maximum average length of what people know a row by. Longer values without words are for programs."""
MIN_FILES = 0.1
"""The share of values that are files with text: the others may be pictures."""
FILE_CHARS = 1000
"""What a file is taken to have, which is not read for a proposal."""
MIN_JSON_WORDS = 4
MIN_JSON_SAID = 0.2
"""JSON says something if at least this share of its values has this many words, with those of the key."""
MAX_CHOICES = 20
MIN_MARKED = 0.004
"""If at least this share of values has tags or entities, the column is HTML. That changes no plain text."""
_EMAIL = re.compile(r"(?:[^<>\n]*<)?[^\s@<>]+@[^\s@<>]+\.[a-z]{2,}>?")
"""An address, or an address after the name of its owner, as mails have it."""
_IP = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d.*)?")
_YAML = re.compile(r"---(?:\s+(?:[\[{!:\w]|- )|\s*$)(?!.*^---\s*$)", re.DOTALL | re.MULTILINE)
"""Objects that a program wrote as YAML. A text with front matter has a second line of dashes."""
_PHP = re.compile(r"(?:\w{1,40}\|)?(?:[aO]:\d+:|s:\d+:\"|[bi]:\d+;)")
_JSON = re.compile(r"\s*\{\s*\"")
_IDENTIFIER = re.compile(r"\\?[A-Za-z]\w*?(?:_|::|\.|\\)[\w.\\]*")
"""What programs call things: `page_callback`, `STORE_NAME`, `core.login`."""
_OPENED = re.compile(
    r"(?:application|audio|font|image|message|model|multipart|text|video)/[\w.+-]+(?:, ?[\w./+-]+)*|"
    r"[\w./-]+\.(?:php|tpl|phtml|twig|jsp|aspx?|py|rb|js|css|xml|sql|ini|sh|class)|[\w./-]*[?&]\w+=\S*"
)
"""What programs open: types of files, parts of programs, and addresses within them with a parameter."""
_NAME_OF_PROGRAMS = re.compile(r"[a-z]+(?:[_.:@/]+[a-z0-9]*|[A-Z][a-z0-9]+)+|[A-Z]+(?:_[A-Z]+)+")
_WORD_OF_PROGRAMS = re.compile(r"[a-z]\w*(?:[.:@/-]\w+)*|[A-Z]+(?:_[A-Z]+)*")
_FILE = re.compile(
    rb"%PDF-|PK\x03\x04.*(?:\[Content_Types\]|word/|ppt/|xl/|vnd\.oasis)|(?:[A-Z][\w-]+: [^\n]+\r?\n){2}", re.DOTALL
)
"""The beginning of a PDF, an office document or an e-mail."""
_PLACEHOLDER = re.compile(
    r"[%$]\{[\w.]+\}|\{\{[#^/]? ?(?:\w+[._][\w.]+|[a-z]+[A-Z]\w*) ?\}\}|\{\$\w|\{%|<%=|<\?php|##\w[\w.]*##"
    r"|\$[a-z]+_[a-z_]+|\{[a-z]+\.\w+\}|\{[A-Z]+(?:_[A-Z]+)*\}|\[[A-Z]+(?:_[A-Z]+)+\]|%[A-Z_]{3,}%"
)
"""A place in a text that a program fills in."""
_MAIL = re.compile(
    r"(?:(?:From|To|Cc|Subject|Date|Received|Message-ID|MIME-Version|Return-Path|Delivered-To): .*\r?\n){2}",
    re.IGNORECASE,
)
"""Mails as they came in: what they say is elsewhere, too, without addresses."""
_LANGUAGES = re.compile(r'\s*\{\s*"(?!id"|no")[a-z]{2}(?:[-_][A-Za-z]{2,4})?"\s*:\s*(?:"|null)')
_CODE = re.compile(r"(?=.*[A-Za-z])(?=.*\d)[A-Za-z0-9/._#-]{2,24}")
"""What an order or an invoice is called: `S00042`, `INV/2024/0117`."""
_OPAQUE = re.compile(r"(?=\D*\d)(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])[\w-]{8,}")
"""What another program calls a row: `cus_1Xk29QqLm`."""
SLUG = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)+")
_SENTENCE = re.compile(
    r"(?<![^\W\d_])(?<!['’-])(?:[^\W\d_]++(?:['’-][^\W\d_]++)*+[^\w\s]*+[^\S\n]++[^\w\s]*+){3,}[^\W\d_]++|[\u0e00-\u0e7f\u3040-\u9fff\uac00-\ud7af]{8,}"
)
"""Four words in a row, or as much of a script without spaces between words."""
_KEY = re.compile(r"^[^:\n]*+: ", re.MULTILINE)
"""What a line of an object begins with."""
_WORDS = re.compile(r"[^\W\d_][,;:.!?)\"'’]*\s+[(\"'„“]?[^\W\d_]")


@lru_cache(maxsize=10_000)
def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in small letters: `postTitle` and `post_title` are both post, title; `#` is one."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+", " ", name)
    return tuple(spaced.lower().split()) or (name.lower(),)


@lru_cache(maxsize=10_000)
def singular(word: str) -> str:
    """Return the singular of an English noun, near enough to compare two."""
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(?:ss|x|ch|sh|[^aeo]us)es$", word) and len(word) > 4:
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "sis", "xis")) and len(word) > 3 else word


@lru_cache(maxsize=10_000)
def noun(name: str) -> tuple[str, ...]:
    """Return the words of a table's name in the singular, without the word for a table."""
    return tuple(map(singular, bare_words(name)))


def bare_words(name: str) -> tuple[str, ...]:
    """Return the words of a table's name without the word for a table."""
    found = words(name)
    return tuple(word for word in found if word not in vocab.TABLE_WORDS) or found


def words_of_tables(tables: Iterable[DatabaseTable]) -> list[tuple[str, ...]]:
    """Return what each table is called, without the word with which most of the names begin."""
    names = [bare_words(table.name) for table in tables]
    first = Counter(name[0] for name in names if len(name) > 1).most_common(1)
    prefix = first[0][0] if first and first[0][1] >= max(3, MOST * len(names)) else ""
    return [name[1:] if name[0] == prefix and len(name) > 1 else name for name in names]


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """What is known of a column: its role and how its text is written."""

    name: str
    role: Role
    filled: float
    """The share of rows that have a value."""
    distinct: float
    """The share of filled rows with a value of their own."""
    length: float
    """The average length of its texts."""
    form: str = "plain"
    choices: tuple[str, ...] = ()
    """The values of a choice, the most frequent first."""
    texts: tuple[str, ...] = ()
    """The first texts, as people read them."""
    said: float = 0
    """How many characters of a text are in sentences, on average, whatever the column is called."""

    @property
    def is_text(self) -> bool:
        """Return whether people read it."""
        return self.role in ("prose", "short")

    @property
    def is_said(self) -> bool:
        """Return whether most of what it holds are sentences."""
        return self.length >= MIN_PROSE_CHARS and 2 * self.said >= self.length

    @property
    def last_word(self) -> str:
        """Return what the name of the column ends with, but for numbers."""
        named = [word for word in words(self.name) if not word.isdigit()]
        return named[-1] if named else ""


def profile(column: Column, table: DatabaseTable) -> ColumnProfile:
    """Return what a column holds."""
    values = column.filled
    filled = len(values) / max(1, len(column.values))
    if is_named_like_a_secret(column.name):
        return ColumnProfile(column.name, "secret", filled, 0, 0)
    named = set(words(column.name))
    if named & vocab.ADDRESSES and _is_of_organisations(table):  # anybody may read where they are
        named -= vocab.ADDRESSES
    choices = tuple(value for value, _ in Counter(map(str, values)).most_common())
    made = ColumnProfile(column.name, "other", filled, len(choices) / max(1, len(values)), 0, choices=choices)
    if column.kind not in ("text", "bytes", "json"):
        return replace(made, role=_plain_role(column, table, named), choices=choices[: MAX_CHOICES + 1])
    files = [one for one in values if isinstance(one, bytes) and _FILE.match(one)]
    if column.kind == "bytes" and len(files) >= max(1, MIN_FILES * len(values)):
        made = replace(made, form=FILE, choices=())
        return replace(made, role=_guarded_role(made, values, named) or "prose", length=FILE_CHARS)
    form = {"bytes": "auto", "json": "json"}.get(column.kind) or _form(values)
    texts = _texts(values, form)
    length, said = (sum(map(count, texts)) / max(1, len(texts)) for count in (len, _characters_said))
    made = replace(made, length=length, form=form, texts=tuple(texts), said=said)
    role = _guarded_role(made, values, named)
    if not role and not texts:  # what is named as a text may get some
        role = "other" if values else "prose" if made.last_word in vocab.PROSE and column.kind == "text" else "empty"
    role = role or _machine_role(made, values, named) or _text_role(made, len(values))
    read = [one.decode("utf-8", "surrogateescape") for one in values if isinstance(one, bytes)]
    if column.kind == "bytes" and role in ("code", "short", "choice") and not all(map(str.isprintable, read)):
        role = "other"  # what is no UTF-8
    return replace(made, role=role, choices=choices if role in ("choice", "locale") else ())


def _is_of_organisations(table: DatabaseTable) -> bool:
    """Return whether rows are companies or places: they are called so, or have a name and a person as their contact.

    Rows that are called after persons, name one, or have a first or last name, are none.
    """
    columns, owners = [words(name) for name in table.columns], vocab.PERSONS - {"tenant"}
    owned = any(vocab.KEY_WORDS & {named[-1]} and owners & {*map(singular, named)} for named in columns)
    persons = {"_".join(named) for named in columns} & {*vocab.FIRST_NAMES, *vocab.LAST_NAMES}
    contact = any(named[0] == "contact" and named[-1] in ("name", "lastname") for named in columns)
    name = any(named[0] != "contact" and named[-1] in ("name", "company") for named in columns)
    called = noun(table.name)
    if owned or persons or vocab.PERSONS & {*called}:
        return False
    return called[-1] in vocab.ORGANISATIONS or (contact and name)


def _guarded_role(made: ColumnProfile, values: Sequence[object], named: set[str]) -> Role | None:
    """Return the role of a column that is not for everybody; None if it may be."""
    is_key = words(made.name)[-1:] == ("id",)
    if values and not is_key and sum(map(looks_secret, values)) * 5 >= len(values):
        return "secret"
    if "draft" in named and made.last_word in vocab.TITLES:
        return "internal"
    hidden = vocab.HIDDEN_FLAGS if made.last_word == "reason" else vocab.INTERNAL | {"draft"}
    if named & hidden and made.last_word in vocab.PROSE | {"title", "memo", "internal", "nonpublic"}:
        return "internal"
    if made.last_word == "by" and named & {"created", "modified", "updated"}:
        return "personal"
    plain = [value for value in values if isinstance(value, str)]
    looks = max(_share(plain, _EMAIL), _share(made.texts, _IP)) > FEW
    is_named = named & vocab.PERSONAL and made.length < 100 and not is_key and made.last_word != "status"
    return "personal" if looks or is_named else None


def _beginning(values: Sequence[object], pattern: re.Pattern[str]) -> float:
    """Return the share of values that begin as a pattern says."""
    texts = (one.decode("ascii", "replace") if isinstance(one, bytes) else str(one) for one in values)
    return sum(pattern.match(text) is not None for text in texts) / max(1, len(values))


def is_for_programs(column: Column) -> bool:
    """Return whether most values are names that programs give, what they open, or objects that they wrote."""
    values = column.filled if column.kind in ("text", "bytes") else []
    named = sum(isinstance(one, str) and _IDENTIFIER.fullmatch(one) is not None for one in values)
    objects = _beginning(values, _YAML) + _beginning(values, _PHP)
    opened = _share([*map(str, column.filled)], _OPENED)
    return max(named / max(1, len(values)) + objects, opened) > MOST


def tells_programs(column: Column) -> bool:
    """Return whether most values are for programs, or addresses of pages, files or machines, or objects."""
    texts = [str(one) for one in column.filled] if column.kind in ("text", "json", "other") else []
    told = _share(texts, PLACE) + _share(texts, _IP) + _beginning(texts, _JSON)
    return told > MOST or is_for_programs(column)


def names_for_programs(column: Column) -> bool:
    """Return whether values are names that a programmer gave: small letters, and a third of more than one word."""
    texts = [one for one in column.filled if isinstance(one, str)]
    return _share(texts, _WORD_OF_PROGRAMS) > NEARLY_ALL and _share(texts, _NAME_OF_PROGRAMS) > FEW


def is_template(column: Column, least: float) -> bool:
    """Return whether more than a share of the texts have places that a program fills in."""
    texts = [value for value in column.filled if isinstance(value, str)]
    return sum(_PLACEHOLDER.search(text) is not None for text in texts) > least * max(1, len(texts))


def _machine_role(made: ColumnProfile, values: Sequence[object], named: set[str]) -> Role | None:
    """Return the role of a column that programs read, or that has times; None if people read it."""
    texts = made.texts
    if _share(texts, _TIME) > 0.8:
        return "time"
    is_slug = made.last_word not in vocab.WHOLE_TITLES and made.distinct > 0.3 and _share(texts, SLUG) > 0.5
    if 2 * sum(_WORDS.search(text) is not None for text in texts) > len(texts):
        named = named - vocab.FILES
    named_elsewhere = len(words(made.name)) > 1 and made.last_word == "id" and _share(texts, _OPAQUE) > 0.5
    places = is_slug or named_elsewhere or _share(texts, PLACE) > 0.5 or _share(texts, UUID) > 0.3
    if (named & vocab.MACHINE or places) and not made.is_said:
        return "other"
    if named & {"locale", "lang", "language", "culture", "langcode"} and all(LOCALE.fullmatch(text) for text in texts):
        return "locale"
    if max(_beginning(values, _YAML), _beginning(values, _MAIL)) > 0.5:
        return "other"
    is_object = made.form == "json" or max(_beginning(values, _PHP), _beginning(values, _JSON)) > 0.5
    if is_object and _beginning(values, _LANGUAGES) <= NEARLY_ALL:
        said = sum(any(len(line.split()) >= MIN_JSON_WORDS for line in text.splitlines()) for text in texts)
        named_so = (vocab.ATTRIBUTES | {*vocab.SUBJECTS}) & {*map(singular, named)} and any(
            len(text.split()) > 1 for text in texts
        )
        settings = vocab.SETTINGS & {*named, *(f"{word}s" for word in named)}
        settings = settings if not made.is_said or _beginning(values, _PHP) > 0.5 else frozenset()
        return "prose" if (named_so or said >= MIN_JSON_SAID * len(texts)) and not settings else "other"
    return None


def _characters_said(text: str) -> int:
    """Return how many characters of a text are in sentences; what the keys of an object are called is said by none."""
    return sum(len(found[0]) for found in _SENTENCE.finditer(_KEY.sub("", text)))


def _text_role(made: ColumnProfile, count: int) -> Role:
    """Return the role of a column whose texts people read."""
    texts, last, choices = made.texts, made.last_word, len(made.choices)
    # two words, or characters of a script without spaces between words
    with_words = sum(bool(_WORDS.search(text)) or (len(text) > 5 and not text.isascii()) for text in texts)
    few = count >= 2 * choices and choices <= MAX_CHOICES and made.length < 40 and last not in vocab.PROSE
    spoken = made.is_said or with_words * 3 >= len(texts)
    if (made.length >= MIN_PROSE_CHARS or last in vocab.PROSE) and spoken and not few:
        is_title = last in vocab.TITLES and last not in vocab.PROSE and made.length <= MAX_TITLE_CHARS
        return "short" if is_title else "prose"
    if few and not (last in vocab.TITLES and made.distinct > 0.3):
        return "choice"
    lettered = sum(map(_has_letters, texts)) * (
        4 if last in vocab.WHOLE_TITLES else 2
    )  # `24.3`, beside `Easter freeze`
    if last in vocab.TITLES and made.length <= MAX_TITLE_CHARS and lettered >= len(texts):
        return "short"
    if made.length > MAX_CODE_CHARS and not with_words:
        return "other"
    if last in vocab.CODES or (last in vocab.TITLES and made.distinct > 0.9 and _share(texts, _CODE) > 0.9):
        return "code"
    if sum(map(_has_letters, texts)) * 2 >= len(texts) and (with_words or made.length < 40):
        return "short" if last in vocab.TITLES or sum(" " in text for text in texts) * 3 >= len(texts) else "code"
    return "other"


def _plain_role(column: Column, table: DatabaseTable, named: set[str]) -> Role:
    """Return the role of a column that has no text."""
    if named & vocab.PERSONAL:
        return "personal"
    zero_or_one = {*map(str, column.filled)} <= {"0", "1"} and column.filled and column.name not in table.key
    if column.kind == "bool" or zero_or_one:
        return "flag"
    kinds: dict[str, Role] = {"time": "time", "number": "number"}
    return kinds.get(column.kind, "other")


def _form(values: Sequence[object]) -> str:
    """Return the format of a column, from those of its values."""
    forms = Counter(find_format(value) for value in values if isinstance(value, str))
    total = forms.total()
    marked = [form for form in ("html", "bbcode") if forms[form] > 0 and forms[form] >= MIN_MARKED * total]
    if forms["serialised"] or len(marked) > 1 or 0 < forms["json"] < 0.5 * total:
        return "auto"
    if marked or forms["json"]:
        return [*marked, "json"][0]
    return "markdown" if forms["markdown"] and forms["markdown"] >= 0.2 * total else "plain"


def _texts(values: Sequence[object], form: str) -> list[str]:
    """Return the texts of the values. If more than half of the values are no text, the column is none."""
    texts, refused = [], 0
    for value in values:
        try:
            text = read_text(value, form)
        except NotText:
            refused += 1
            continue
        if text.strip():
            texts.append(text.strip())
    return texts if refused * 2 <= len(values) else []


def _share(texts: Sequence[str], pattern: re.Pattern[str]) -> float:
    return sum(pattern.fullmatch(text) is not None for text in texts) / max(1, len(texts))


def _has_letters(text: str) -> bool:
    return sum(character.isalpha() for character in text) * 3 > len(text)
