"""Every word and number by which `init` decides. Names are compared word by word, in small letters
and the singular.

Values decide before names do: a word here only tells apart what values cannot, such as whether a
yes hides a row. All lists together have at most 150 words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


IRREGULAR = {"hidden": "hide", "held": "hold", "till": "until"}
NOUN_ENDS = (
    *(("al", "e"), ("ion", "e"), ("ion", ""), ("ation", "e"), ("sion", "d")),
    *(("bility", "ble"), ("ity", "e"), ("ity", ""), ("acy", "ate"), ("cy", "t"), ("y", "e")),
)
"""What nouns end with, and the words that they are made of: approval, deletion, rejection,
expiration, suspension; visibility, sensitivity, confidentiality, privacy, secrecy, expiry."""
PUBLISHED_ELSEWHERE = re.compile(r"pub+li(?:[eé]e?|cad[oa]|cat[oa]|ziert)")
"""`published` in French, Spanish, Portuguese, Italian and German."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@lru_cache(maxsize=50_000)
def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in small letters: `postTitle` and `post_title` are both post,
    title."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+", " ", name)
    found = tuple(spaced.lower().split())
    return found or (name.lower(),)


@lru_cache(maxsize=50_000)
def singular(word: str) -> str:
    """Return the singular of an English noun, near enough to compare two."""
    if word == "people":
        return "person"
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(?:ss|x|ch|sh|[^aeo]us)es$", word) and len(word) > 4:
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


@lru_cache(maxsize=50_000)
def base(word: str, known: frozenset[str]) -> str:
    """Return which of some known words this is, in any form: `deleted` is delete, `publicly`
    public; "" if none."""
    forms = [word, IRREGULAR.get(word, "")]
    if len(word) > 4:
        # "needs", "removed", "publishes", "privately", "pending", "publishable"
        ends = ("s", "d", "n", "ed", "es", "ly", "ing", "able")
        forms += [word.removesuffix(end) for end in ends]
        if word.endswith("ed") and word[-3] == word[-4]:
            # banned, cancelled
            forms.append(word[:-3])
    if PUBLISHED_ELSEWHERE.fullmatch(word):
        # publie, publicado
        forms.append("publish")
    return next((one for one in forms if one in known), "")


@lru_cache(maxsize=50_000)
def verb_of(noun: str) -> str:
    """Return the word that hides or shows of which this is the noun: `deletion` is delete,
    `privacy` private; "" if it is none."""
    if noun == "publication":
        return "publish"
    for end, rest in NOUN_ENDS:
        word = noun.removesuffix(end) + rest
        # but not access, of which accession is none
        if noun.endswith(end) and word in HIDE | SHOW | BANNED | HELD | {"moderate", "sensitive"}:
            return word
    return ""


def is_any(named: tuple[str, ...], known: frozenset[str]) -> bool:
    """Return whether one of the words of a name is a known one, in any form."""
    return any(base(word, known) for word in named)


# --- Numbers ---

NEARLY_ALL, HALF, SOME, FEW, HARDLY = 0.9, 0.5, 0.3, 0.1, 0.05
"""Shares of rows or values. A value that nearly all rows have makes the others exceptions."""
MAX_VALUES = 12
"""A column with more values says no state, and is no facet of numbers."""
MAX_CHOICES = 50
"""A text with at most this many values, each in several rows, is a choice. A larger table is no
list of labels."""
MAX_SHOWN = 2_000
"""Texts of shown rows among which a hidden one is looked for."""
MIN_ROWS = 3
"""Fewer rows prove nothing."""
MIN_PROSE_CHARS = 30
"""Shorter texts are names, or stand in the text of their document."""
MAX_NAME_CHARS = 150
"""Longer texts are not the name of anything."""
MAX_CODE_CHARS = 24
"""Longer values without letters are no codes; longer names are titles of what others tell of."""
PROSE = 100
"""If no table has a few texts of this length, people look for what has a name in this database."""
LITTLE = 15
"""Rows that say less in sentences than this many characters have names alone."""
MANY_TOLD = 6
"""Rows that have a name and no prose are things if as many columns tell of them."""
MAX_TEXTS, MAX_JOINS = 10, 8
"""More columns of text or parts say little; more joins slow a query."""
CROWD = 30
"""What names a row more often than this is contained in it: the row is none of one piece."""
MIN_RANDOM_CHARS = 10
"""Longer keys are random: nothing else has the same by chance."""
MIN_FOUND = 0.85
"""The share of a column's values that are keys of the table it names: others name rows that are
gone."""
MIN_UNIX_SECONDS = 400_000_000
"""Smaller numbers are no time in seconds since 1970."""

# --- What columns hold ---

TITLES = ("title", "subject", "headline", "name", "label")
"""Last words of columns that name a row, the surest first: among several short texts, values do not
tell which."""
STRONG_TITLES = frozenset(TITLES[:3])
"""Names that stay names though they repeat: many rows may have one subject."""
POINTERS = _words("first last latest current")
"""Words of columns that name one of the rows that belong to this one."""
FIRST_NAME, LAST_NAME = ("first", "name"), ("last", "name")
"""A person is called by two columns together."""
PERSONAL = _words("address phone email birth login username")
"""Words of columns about a person that a stranger should not meet in a search."""
PLACES = _words("address phone")
"""Words of columns that anybody may read of a company, but not of a person."""
ORGANISATIONS = _words("company")
CUSTOMERS = _words("customer patient student")
"""Nouns of persons whom people look for, though they may log in."""
PERSONS = CUSTOMERS | _words("user person staff member author admin")
"""Nouns of tables of persons: what belongs to one is personal."""
REMARKS = _words("note comment reason")
"""Words of texts that are said about a person, or to colleagues, by what stands before them."""
WRITERS = _words("author owner user by")
"""Words of columns that name a person to whom a row belongs."""
KEY_WORDS = _words("id key no code number ref")
CODE_NAMES = _words("number no code ref ticket")
"""Words of columns by whose unique codes people know a row."""
ORDERS = _words("position order number")

# --- What belongs together ---

TYPE_WORDS = _words("type class table")
"""Last words of columns that say of which table the row is that the column beside names."""
PARENT_WORDS = _words("parent pid reply")
"""Words of columns that name a row of the same table."""
GENERIC = _words("parent owner ref")
"""Words of columns that name a row, but not of which table."""
CONTAINERS = _words("category folder forum project page")
"""Nouns of tables whose rows contain those of others."""
VERSIONS = _words("version revision")

# --- What tables are for ---

MACHINE = _words("cache queue notification token setting permission audit search")
"""Nouns of tables that programs need, whatever stands in them."""
LOGS = re.compile(
    r"(?:sys|event|audit|access|error|e?mail|activity|mod)logs?|watchdog|\w*searchindex|(?:sent|queued)mails?"
)
DOUBTFUL = _words("log job version history address session")
"""Nouns that do so where no name and no prose speaks against it: people look for a job, for a
session of a conference, and in the log of a ship."""
GROUPS = _words("group role permission")
"""Nouns of tables and columns of who may read: rows that name one are for few, if most name
none."""
BROUGHT = _words("country language group role status type state")
"""Nouns of lists of names that come filled with applications. They decide only where prose is what
people look for."""
REPLIES = _words("comment reply answer message note review")
"""Nouns of what people say about a row: it belongs to it, though it has a subject of its own."""
COPIES = (*VERSIONS, "history", "archive", "search", "index")
"""Ends of nouns of tables with what other tables have, too: their texts have to prove it."""
NO_GROUP = frozenset(["", "0", "-1"])
"""Values that name no group."""
RECEIVERS = _words("recipient")
"""Words of columns and tables by which a message is for some persons alone."""
ROOMS = _words("channel conversation room")
REPORTS = _words("report")
"""Nouns of what moderators are told of another row."""

NAME_KEYS, NAME_VALUES = _words("name key"), _words("value content")
"""Last words of columns of tables that are names with values."""
PRIVATE = re.compile(r"(?:priv(?:ate)?|personal|scheduled)(?:msg|message|mail|post|statuse?)|[pd]m")
"""What tables of what persons wrote to each other, or shall be read later, are called."""

# --- Who may see a row ---

HIDE = _words(
    "private confidential secret internal restrict delete remove hide draft spam trash expire"
    " embargo"
)
SHOW = _words("public publish visible show approve valid")
"""Words that say of a row that few may see it, or everybody."""
NEWEST = _words("latest current")
"""Words of a yes and no, and of pointers, that tell the row that counts from older ones."""
IN_USE, OUT_OF_USE = _words("active enable listed"), _words("disable")
"""Words of a yes and no that hide rows if these are the fewer ones."""
VERBS = _words("delete remove hide show restrict approve")
"""Those of them that say what somebody did, where a row that is hidden is called `deleted`."""
NOT = _words("not non no un in")
"""Words that turn the others round, before them or as their beginning."""
BEGINNINGS = frozenset(["un", "in"])
"""Those of them that do so as the beginning of a word alone."""
BANNED = _words("ban block suspend spam")
"""What hides the rows of an account."""
RIGHTS = _words("permission")
HELD = _words("hold pending waiting reject quarantine")
"""Values and flags by which a moderator holds back what people write; of what people work on they
are states."""
WRITTEN = REPLIES | _words("post")
"""Nouns of what people write."""
WORK = _words("ticket task issue request order job project")
"""Nouns of what people work on."""
PROGRESS = HELD | _words("open new close done progress complete cancel")
"""Values that say how far a row is."""
PLACED, READERS = _words("in on"), _words("to for from")
"""Words before a place where a row is shown, and before those who read it."""
ENDS = _words("until to end embargo")
"""Words of a time up to which something holds."""
STATES = _words("state status")
"""Words of columns that say how far a row is; of a yes and no, whether it is on or off."""
STATE = re.compile(r"e?sta[td](?:us|ut|o|e)?")
"""The same words in other languages: statut, estado, stato."""
PRIVACY = _words("audience access sensitive")
"""Words of columns of which the most common value alone is shown."""
ASKED = STATES | PRIVACY | _words("moderate")
"""Words of columns that a person has to answer for, with the nouns of all words that hide or show:
visibility, approval."""
EXPLAINED = _words("has can")
"""First words of a yes and no that say what else a row has, or what can be done with it."""
FILLERS = PERSONS | ASKED | _words("flag date time search index from until")
"""Words that say nothing beside those that hide or show, with all words of up to three letters."""
LOGIN, DIRECT, PLACE_WORDS = _words("login"), _words("direct"), _words("city country")
"""What only some have, what two persons say, and what stands beside the state of an address."""
RELEASE = _words("publish public approve")
"""Words of columns in which no value says "not yet"."""
HARMLESS = TYPE_WORDS | ORDERS | _words("language category country priority")
"""Words of columns that say something else of a row than who may see it."""
IS_SET, IS_UNSET = frozenset(["1", "-1", "on", "x"]), frozenset(["0", "off"])
"""Other values of a yes and a no, such as the -1 of old databases, which only a name that says a
direction makes so."""
YES, NO = frozenset("yt1") | _words("yes true"), frozenset("nf0") | _words("no false")


# --- What words say ---


@dataclass(frozen=True, slots=True)
class Direction:
    """What words say of a row."""

    hides: bool | None
    """Whether a yes hides a row; None if the words do not say."""
    word: str = ""
    """The word that says so."""
    rest: tuple[str, ...] = ()
    """The other words, which may be about something else."""
    after: str = ""
    """The one of them that stands behind it, which it may describe: `internal medicine`."""


def read_direction(
    named: Sequence[str], hide: frozenset[str] = HIDE, show: frozenset[str] = SHOW
) -> Direction:
    """Return what the words of a name or a value say, given those that hide and show.

    >>> read_direction(("is", "not", "public"))
    Direction(hides=True, word='not public', rest=())
    """
    found: list[Direction] = []
    rest: list[str] = []
    negation = ""
    parts: list[str] = []
    for word in named:
        parts += parts_of(word, hide | show)
    for part, behind in zip(parts, [*parts[1:], ""], strict=False):
        if part in BEGINNINGS and part in named:
            # "show in public": a word of its own, and not the beginning of "invisible"
            continue
        if part in NOT:
            # two negations are none: "not unpublished"
            negation = "" if negation else f"{part} "
        elif base(part, hide | show):
            hides = bool(base(part, hide)) != bool(negation)
            is_next = behind in ("only", *NOT) or base(behind, hide | show)
            after = "" if is_next else _telling(behind)
            found.append(Direction(hides, f"{negation}{part}", after=after))
            negation = ""
        elif _telling(part):
            rest.append(part)
    if {"only", "required"} & {*named} and is_any(tuple(map(singular, named)), PERSONS | LOGIN):
        found.append(Direction(True, "only"))
        rest = [one for one in rest if one not in LOGIN]
    if found:
        # internal_only
        rest = [one for one in rest if one not in ("only", "required")]
    # "hide from public" hides: a word that hides counts before one that shows
    found.sort(key=lambda direction: not direction.hides)
    first = found[0] if found else Direction(None)
    return replace(first, rest=tuple(rest))


def _telling(part: str) -> str:
    """Return a word if it says something of its own, or else ""."""
    if len(part) <= 3 or is_any((part, singular(part)), FILLERS):
        # `is`, `flag`, `user`
        return ""
    return part


def parts_of(word: str, known: frozenset[str] = HIDE | SHOW) -> list[str]:
    """Return a word, or its beginning and the word within: `unpublished`, `nonpublic`,
    `isprivate`."""
    if word in NOT or base(word, known):
        return [word]
    for begin in ("is", *sorted(NOT)):
        rest = word.removeprefix(begin)
        if rest != word and base(rest, known):
            return [begin, rest]
    return [word]
