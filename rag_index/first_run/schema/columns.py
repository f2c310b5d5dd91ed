"""What a column is, from its values: prose, names, codes, choices, numbers, times, flags, secrets,
personal data."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from rag_index.components.sources.secret_values import PLACE, UUID, looks_secret
from rag_index.components.sources.text import NotText, find_format, read_text
from rag_index.core.documents.text_languages import LOCALE
from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.core.settings.parts import FILE
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.words import is_any, read_direction, singular, words

if TYPE_CHECKING:
    from collections.abc import Sequence


Kind = Literal["text", "number", "time", "bool", "bytes", "json", "id", "other"]
Role = Literal[
    "prose",
    "name",
    "code",
    "choice",
    "flag",
    "time",
    "number",
    "locale",
    "secret",
    "personal",
    "other",
]
"""`name` are short texts with words, `code` short ones without, `choice` one of few values;
programs read `other`."""
MAX_CHARS = 1500
"""What is read of one value."""
FILE_CHARS = 1000
"""What a file is taken to have, which is not read for a proposal."""
MARKS = re.compile(r"[<&\[{*#`_|~>]")
SENTENCE = re.compile(
    r"(?<![^\W\d_])(?<!['’-])(?:[^\W\d_]++(?:['’-][^\W\d_]++)*+[^\w\s]*+[^\S\n]++[^\w\s]*+){3,}[^\W\d_]++"
    r"|[\u0e00-\u0e7f\u3040-\u9fff\uac00-\ud7af]{8,}"
)
"""Four words in a row, or as much of a script without spaces between words."""
_WORDS = re.compile(
    r"[^\W\d_]{2,}[^\w\s]*\s+[^\w\s]*[^\W\d_]+|[\u0e00-\u0e7f\u3040-\u9fff\uac00-\ud7af]{2,}"
)
_SIGNS = re.compile(r"[\u0e00-\u0e7f\u3040-\u9fff\uac00-\ud7af]+")
_KEY = re.compile(r"^[^:\n]*+: ", re.MULTILINE)
_EMAIL = re.compile(r"(?:[^<>\n]*<)?[^\s@<>]+@[^\s@<>]+\.[a-z]{2,}>?")
_PERSONAL = re.compile(
    r"\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-f]{1,4}:){3,7}[0-9a-f]{0,4}"  # addresses of machines
    r"|[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?"  # IBAN
    r"|\d{3}-\d{2}-\d{4}|(?:\d{4}[ -]){3}\d{4}|\d{6}[-+ ]\d{3,4}[\dA-Z]?|\d{3}\.\d{4}\.\d{4}\.\d{2}"  # personal numbers
    r"|(?:\+\d|00\d{1,3}[ /-])[\d ()/.-]{6,18}\d|\(?0\d{1,5}[)/ -][\d /-]{4,14}\d"
    r"|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?: ?x\d+)?"
)
"""Addresses, telephone numbers and the numbers of persons, accounts and cards, as a whole value."""
_FILLER = re.compile(r"\W*lorem ipsum", re.IGNORECASE)
"""What stands where nobody has written yet."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d.*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_PROGRAMS = re.compile(
    r"(?:\w{1,40}\|)?(?:[aO]:\d+:|s:\d+:\"|[bi]:\d+;)|<\?|---\s|[a-z][a-z0-9+.-]*://|\{\\rtf|(?=.*\.\w+$)\S*[/\\]\S+$|[0-9a-f]{16,}$"
    r"|[\w.+-]+/[\w.+-]+(?:;.*)?$|(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER)\s"
)
"""What programs write: serialised objects, paths, digests, numbers, types of files."""
_LIST = re.compile(r"\[(?:\"[^\"]{1,60}\"(?:, ?)?)*\]")
"""Tags, as a list in JSON."""
_SLUG = re.compile(
    r"[a-z0-9]+(?:[-_.:/@]+%?[A-Za-z0-9]*)+|[a-z]+(?:[A-Z][a-z0-9]*)+|(?:[A-Z][a-z0-9]+){2,}|[A-Z0-9]+(?:_[A-Z0-9]+)+|\\?\w+(?:\\\w+)+"
)
"""Names that programmers give: `page_callback`, `user.login`, `STORE_NAME`."""
_WORD_OF_PROGRAMS = re.compile(r"[a-z]\w*(?:[.:@/-]\w+)*|[A-Z]+(?:_[A-Z]+)*")
_FILE_BYTES = re.compile(
    rb"%PDF-|PK\x03\x04.*(?:\[Content_Types\]|word/|ppt/|xl/|vnd\.oasis)|(?:[A-Z][\w-]+:"
    rb" [^\n]+\r?\n){2}",
    re.DOTALL,
)
CALENDAR = re.compile(r"(?:b')?\s*BEGIN:V(?:CALENDAR|CARD|EVENT|TODO|JOURNAL)", re.IGNORECASE)

_TEMPLATE = re.compile(
    r"[%$]\{[\w.]+\}|\{\{[#^/]? ?(?:\w+[._][\w.]+|[a-z]+[A-Z]\w*)"
    r" ?\}\}|\{\$\w|\{%|<%=|<\?php|##\w[\w.]*##"
    r"|\{[a-z]+\.\w+\}|\{[A-Z]+(?:_[A-Z]+)*\}|\[[A-Z]+(?:_[A-Z]+)+\]|%[A-Z_]{3,}%"
    r"|(?<![\w%])[%!@][a-z_]{3,}\b.*[%!@][a-z_]{3,}\b|(?<!\d)%(?:\d\$)?[sd]\b|(?<![\w%])%[a-z_]{3,}\b"
)
"""A place in a text that a program fills in."""


@dataclass(frozen=True, eq=False)
class Column:
    """A column with the values of the sampled rows, texts cut at `MAX_CHARS`, and what they are
    taken for."""

    name: str
    sql: str
    """The name as it stands in SQL."""
    kind: Kind
    nullable: bool
    values: tuple[Any, ...] = ()
    problem: str = ""
    """Why its text cannot be read."""
    is_enum: bool = False
    """Whether it takes the values of a list alone, so that it cannot be compared with an empty
    text."""
    role: Role = "other"
    filled: float = 0
    """The share of rows that have a value."""
    distinct: float = 0
    """The share of filled rows with a value of their own."""
    why: str = ""
    """Why no search reaches a column with text, to be read after its name."""
    form: str = "plain"
    length: float = 0
    """The average length of its texts as people read them."""
    sentence_chars: float = 0
    """How many characters of a text stand in sentences, on average."""
    readable: float = 0
    """The share of the characters that people read: the others are marks."""
    texts: tuple[str, ...] = ()

    @cached_property
    def given(self) -> list[Any]:
        """Return the values that are neither NULL nor empty."""
        found = []
        for value in self.values:
            is_blank = isinstance(value, str) and not value.strip()
            if value is not None and not is_blank:
                found.append(value)
        return found

    @property
    def is_strong(self) -> bool:
        """Return whether it names rows though its values repeat: many rows may have one subject."""
        return self.last_word in known.STRONG_TITLES

    @property
    def is_text(self) -> bool:
        """Return whether people read it."""
        return self.role in ("prose", "name")

    @property
    def is_time(self) -> bool:
        """Return whether it holds times, if only as seconds since 1970."""
        if "time" in (self.kind, self.role):
            return True
        if self.kind != "number":
            return False
        # 1735689600; 0 stands for no time
        numbers = [value for value in self.given if value]
        return bool(numbers) and all(map(_is_unix_time, numbers))

    @property
    def last_word(self) -> str:
        """Return what the name of the column ends with, but for numbers."""
        for word in reversed(words(self.name)):
            if not word.isdigit():
                return word
        return ""


def _is_unix_time(value: Any) -> bool:
    return isinstance(value, int) and value > known.MIN_UNIX_SECONDS


def read_column(column: Column, key: Sequence[str], noun: Sequence[str]) -> Column:
    """Return what a column holds, of a table with this key whose rows are called `noun`."""
    values = column.given
    distinct = len({*map(str, values)}) / max(1, len(values))
    filled = len(values) / max(1, len(column.values))
    made = replace(column, filled=filled, distinct=distinct)
    if column.problem:
        return replace(made, why=column.problem)
    # `is_secret` says so of its row
    is_flag = {str(value).lower() for value in values} <= known.YES | known.NO
    if is_named_like_a_secret(column.name) and not is_flag:
        return replace(made, role="secret", why="is named like a secret")
    if column.kind not in ("text", "bytes", "json"):
        return replace(made, role=_plain_role(column, key, _personal_words(column.name, noun)))
    if any(isinstance(value, bytes) and _FILE_BYTES.match(value) for value in values):
        return replace(made, role="prose", form=FILE, length=FILE_CHARS, sentence_chars=FILE_CHARS)
    form = {"bytes": "auto", "json": "json"}.get(column.kind) or _form(values)
    texts = tuple(_texts(values, form))
    if any(CALENDAR.match(str(value)[:40]) for value in values):
        why = "has calendars, which may be private"
        return replace(made, role="personal", texts=texts, why=why)
    if not texts:
        return made
    length = sum(map(len, texts)) / len(texts)
    sentence_chars = sum(map(_count_sentence_chars, texts)) / len(texts)
    raw = sum(len(value) for value in values if isinstance(value, str | bytes))
    readable = min(1.0, length * len(texts) / max(1, raw))
    made = replace(
        made,
        form=form,
        texts=texts,
        length=length,
        sentence_chars=sentence_chars,
        readable=readable,
    )
    role, why = _guarded(made, values, key, noun)
    return replace(made, role=role or _text_role(made, values), why=why)


def _personal_words(name: str, noun: Sequence[str]) -> frozenset[str]:
    """Return the words in a column's name that mark it as personal data."""
    named = words(name)
    last_two = "_".join(named[-2:])
    found = known.PERSONAL & {*named, last_two}
    if known.ORGANISATIONS & {*noun}:
        # the address of a company is not personal
        return found - known.PLACES
    return found


def _plain_role(column: Column, key: Sequence[str], personal: frozenset[str]) -> Role:
    """Return the role of a column that has no text."""
    if personal and words(column.name)[-1] not in known.KEY_WORDS and column.kind != "bool":
        return "personal"
    values = {*map(str, column.given)}
    zero_or_one = values and values <= {"0", "1"} and column.name not in key
    if column.kind == "bool" or zero_or_one:
        return "flag"
    if column.kind in ("time", "number"):
        return column.kind
    return "other"


def _form(values: Sequence[Any]) -> str:
    """Return the format of a column, from those of its values."""
    texts = [value for value in values if isinstance(value, str)][: known.PROSE]
    forms = Counter(map(_format, texts))
    min_marked = max(1, 0.01 * len(texts))
    marked = [form for form in ("html", "bbcode") if forms[form] >= min_marked]
    is_mixed = 0 < forms["json"] < known.HALF * len(texts)
    if forms["serialised"] or len(marked) > 1 or is_mixed:
        return "auto"
    if marked:
        return marked[0]
    if forms["json"]:
        return "json"
    # one text with a * is no Markdown
    min_markdown = max(1, 2 * known.FEW * len(texts))
    return "markdown" if forms["markdown"] >= min_markdown else "plain"


def _format(text: str) -> str:
    if not MARKS.search(text):
        return "plain"
    cut_off = len(text) >= MAX_CHARS and re.match(r"\s*(?:\{\s*\"|\[\s*[{\[\"])", text)
    return "json" if cut_off else find_format(text)


def _texts(values: Sequence[Any], form: str) -> list[str]:
    """Return the texts of the values; none if nearly all values are no text. Of bytes, a few are
    enough."""
    found = []
    refused = 0
    most = known.NEARLY_ALL
    for value in values:
        if isinstance(value, bytes):
            most = known.FEW
        is_read = form == "plain" and isinstance(value, str)
        text = value if is_read else read_value(value, form)
        if text is None:
            refused += 1
        elif stripped := text.strip():
            found.append(stripped)
    return [] if refused > most * len(values) else found


def read_value(value: Any, form: str) -> str | None:
    """Return the text of a value as people read it; None if it is no text."""
    try:
        return read_text(value, form)
    except NotText:
        return None


def _count_sentence_chars(text: str) -> int:
    """Return how many characters of a text are in sentences. The keys of an object are in none."""
    without_keys = _KEY.sub("", text)
    sentences = SENTENCE.finditer(without_keys)
    return sum(len(found[0]) for found in sentences)


def share(texts: Sequence[Any], pattern: re.Pattern[str], *, whole: bool = True) -> float:
    """Return the share of texts that a pattern matches, as a whole or at their beginning."""
    match = pattern.fullmatch if whole else pattern.match
    matches = [text for text in texts if match(str(text))]
    return len(matches) / max(1, len(texts))


def _share_with(texts: Sequence[str], pattern: re.Pattern[str]) -> float:
    """Return the share of texts in which a pattern is found; 0 without texts."""
    found = [text for text in texts if pattern.search(text)]
    return len(found) / max(1, len(texts))


def _guarded(
    made: Column, values: Sequence[Any], key: Sequence[str], noun: Sequence[str]
) -> tuple[Role | None, str]:
    """Return the role of a column that is not for everybody, and why; no role if it may be."""
    named = {*map(singular, words(made.name))}
    last = singular(made.last_word)
    is_key = made.name in key or last in known.KEY_WORDS
    secrets = sum(map(looks_secret, values))
    if not is_key and secrets >= 2 * known.FEW * len(values):
        return "secret", "looks like a secret"
    is_remark = bool(named & known.REMARKS)
    # `moderator_note`
    if is_remark and (named & known.PERSONS or is_any(tuple(named), known.HELD)):
        return "personal", "is a remark for few"
    # `private_notes`, `notes_nonpublic`
    is_long = made.length > known.MIN_PROSE_CHARS
    is_hidden = is_any(words(made.name), known.HIDE) or read_direction(words(made.name)).hides
    if (is_remark or is_long) and is_hidden:
        return "personal", "is for few, by its name"
    # 04/05/2024 is no telephone number
    others = [text for text in made.texts if not _TIME.fullmatch(text)]
    if share(others, _EMAIL) + share(others, _PERSONAL) > known.SOME:
        return "personal", "looks like personal data"
    # `phone_type` has no telephone numbers
    if is_key or last in ("status", "type", "kind"):
        return None, ""
    # a long text may mention an address, unless it is about a person
    if made.length >= known.PROSE and not known.PERSONS & {*map(singular, noun)}:
        return None, ""
    if _personal_words(made.name, noun):
        return "personal", "is personal, by its name"
    return None, ""


def _text_role(made: Column, values: Sequence[Any]) -> Role:
    """Return the role of a column whose texts people may read."""
    texts, length = made.texts, made.length
    if share(texts, _TIME) > known.MIN_FOUND:
        return "time"
    if {text.lower() for text in texts} <= known.YES | known.NO:
        return "flag"
    is_language = {*words(made.name)} & {"locale", "lang", "language", "langcode"}
    if is_language and share(texts, LOCALE) == 1:
        return "locale"
    if share(texts, _FILLER, whole=False) == 1:
        return "other"
    letters = sum(any(map(str.isalpha, text)) for text in texts) / len(texts)
    # 2024-0017
    if letters < known.HALF and length <= known.MAX_CODE_CHARS and made.kind != "json":
        return "code"
    # tags: `["urgent", "printer"]`
    if made.kind == "json" and share(values, _LIST) == 1:
        items = {*", ".join(texts).split(", ")}
        if len(items) <= min(known.MAX_CHOICES, len(texts)):
            return "choice"
    if made.form == "json" or share(values, _PROGRAMS, whole=False) > known.HALF:
        # a serialised object with sentences in it
        is_often_text = len(texts) >= known.SOME * len(values)
        return "prose" if is_often_text and made.sentence_chars >= known.SOME * length else "other"
    wordy = _share_with(texts, _WORDS)
    if _is_prose(made, wordy):
        return "prose"
    is_place = share(texts, PLACE) + share(texts, UUID) > known.HALF
    is_wordless = length > 2 * known.MIN_PROSE_CHARS and wordy < known.SOME
    if letters < known.HALF or is_place or is_wordless:
        return "other"
    return _short_role(made, wordy)


def _is_prose(made: Column, wordy: float) -> bool:
    """Return whether texts are sentences, given the share of them that have words in a row."""
    length, sentence_chars = made.length, made.sentence_chars
    signs = "".join(_SIGNS.findall("\n".join(made.texts)))
    characters = sum(map(len, made.texts))
    # a Chinese sign says more than a letter
    is_chinese = len(signs) / characters > known.SOME
    weight = 3 * length if is_chinese else length
    if weight >= known.MIN_PROSE_CHARS and sentence_chars >= known.SOME * length:
        return True
    # log lines: long, with few sentences
    is_long = length >= 2 * known.MIN_PROSE_CHARS
    if is_long and wordy > known.HALF and sentence_chars >= known.FEW * length:
        return True
    # short sentences; a `subject` may be one, and remains a title
    is_sentence = weight >= known.MAX_CODE_CHARS and sentence_chars >= known.HALF * length
    return is_sentence and made.last_word not in known.TITLES


def _short_role(made: Column, wordy: float) -> Role:
    """Return the role of a column with short texts."""
    texts = made.texts
    count = len({*texts})
    is_title = made.last_word in known.TITLES
    strong = made.is_strong or (is_title and made.distinct > known.SOME)
    min_texts = max(known.MANY_TOLD, 2 * count)
    few = count <= known.MAX_CHOICES and len(texts) >= min_texts
    longest = max(map(len, texts))
    # open, in progress, closed
    if few and longest <= 2 * known.MIN_PROSE_CHARS and not strong:
        return "choice"
    # `user.login`
    if share(texts, _SLUG) > known.HALF and not strong:
        return "other" if made.length > known.MAX_VALUES or wordy else "code"
    # titles with some words are names, though most are codes
    if strong and wordy > 2 * known.FEW:
        return "name"
    codes = sum(map(_is_code, texts))
    return "code" if codes > known.HALF * len(texts) else "name"


def _is_code(text: str) -> bool:
    """Return whether a text is one word with digits: `AB-1024`, not `Windows11`."""
    if " " in text or not any(map(str.isdigit, text)):
        return False
    if len(text) >= known.MAX_VALUES:
        return True
    letters = sum(map(str.isalpha, text))
    return letters < known.HALF * len(text)


def is_template(column: Column) -> bool:
    """Return whether most texts have places that a program fills in."""
    return _share_with(column.texts, _TEMPLATE) > known.HALF


def names_for_programs(column: Column) -> bool:
    """Return whether values are names that a programmer gave."""
    slugs = share(column.texts, _SLUG)
    if slugs <= known.SOME or slugs > known.HALF:
        return slugs > known.HALF
    # `login`, beside `user.login`
    return share(column.texts, _WORD_OF_PROGRAMS) > known.NEARLY_ALL
