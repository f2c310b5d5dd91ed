"""Every word and number by which `init` decides. Names are compared word by word, in small letters and the singular.

Values decide before names do: a word here only tells apart what values cannot, such as whether a yes hides a row.
"""

from __future__ import annotations

import re
from functools import lru_cache


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


@lru_cache(maxsize=20_000)
def words(name: str) -> tuple[str, ...]:
    """Return the words of a name in small letters: `postTitle` and `post_title` are both post, title."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+", " ", name)
    return tuple(spaced.lower().split()) or (name.lower(),)


@lru_cache(maxsize=20_000)
def singular(word: str) -> str:
    """Return the singular of an English noun, near enough to compare two."""
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(?:ss|x|ch|sh|[^aeo]us)es$", word) and len(word) > 4:
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


# --- Numbers ---

NEARLY_ALL, HALF, SOME, FEW, HARDLY = 0.9, 0.5, 0.3, 0.1, 0.05
"""Shares of rows or values. A value that nearly all rows have makes the others exceptions."""
MAX_VALUES = 12
"""A column with more values says no state, and is no facet of numbers."""
MAX_CHOICES = 50
"""A text with at most this many values, each in several rows, is a choice. A larger table is no list of labels."""
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
"""The share of a column's values that are keys of the table it names: others name rows that are gone."""
MIN_UNIX_SECONDS = 400_000_000
"""Smaller numbers are no time in seconds since 1970."""

# --- What columns hold ---

TITLES = (
    "title", "subject", "headline", "heading", "name", "caption", "label", "topic", "question", "term", "summary",
    "displayname", "fullname", "titel", "titre", "betreff", "nombre",
)  # fmt: skip
"""Last words of columns that name a row, the surest first: among several short texts, values do not tell which."""
STRONG_TITLES = frozenset(TITLES[:4] + TITLES[-4:-1])
"""Names that stay names though they repeat: many rows may have one subject."""
FIRST_NAMES = ("firstname", "fname", "givenname", "vorname", "prenom")
LAST_NAMES = ("lastname", "lname", "surname", "familyname", "nachname")
"""A person is called by two columns together."""
PLACES = _words("zip postcode address street latitude longitude lat lng phone fax tel telephone")
"""Words of columns that anybody may read of a company or a place, but not of a person."""
PERSONAL = PLACES | _words("""
    email mail mobile ip iban ssn passport birthday birthdate birth salary gender login username health
""")
"""Words of columns about a person that a stranger should not meet in a search."""
ORGANISATIONS = _words("company supplier vendor office shop store venue organization location")
CUSTOMERS = _words("customer client patient student employee")
"""Nouns of persons whom people look for, though they may log in."""
PERSONS = CUSTOMERS | _words("user person people staff member contact agent author")
"""Nouns of tables of persons: what belongs to one is personal."""
REMARKS = _words("note remark comment memo reason")
"""Words of texts that are said about a person, or to colleagues, by what stands before them."""
SAID = REMARKS | {*TITLES, "text", "body", "content", "description", "message"}
WRITERS = _words("author owner user creator writer sender reporter assignee assigned by")
"""Words of columns that name a person to whom a row belongs."""
CODE_NAMES = _words("number no nr code reference ticket sku isbn")
"""Words of columns by whose unique codes people know a row."""
ORDERS = _words("position sort order rank line number sequence")
CHANGED = _words("updated modified changed edited")

# --- What belongs together ---

KEY_WORDS = _words("id ids fk no nr key uuid guid code number ref handle uid")
TYPE_WORDS = _words("type class model kind entity table")
"""Last words of columns that say of which table the row is that the column beside names."""
GENERIC = _words("parent owner item record entity object ref")
"""Words of columns that name a row, but not of which table."""
CONTAINERS = _words("page folder category forum board section project collection community")
"""Nouns of tables whose rows contain those of others."""
PARENT_WORDS = _words("parent root pid reply")
"""Words of columns that name a row of the same table."""
POINTERS = _words("first last latest newest current live")
"""Words of columns that name one of the rows that belong to this one."""
VERSIONS = _words("version revision edition")

# --- What tables are for ---

MACHINE = _words("""
    cache migration queue outbox notification token session setting config configuration preference permission audit
    cron lock statistic credential acl template search fts
""")
"""Nouns of tables that programs need, whatever stands in them."""
DOUBTFUL = _words("log job version index import export history address")
"""Nouns that do so where no name and no prose speaks against it: people look for a job, and in the log of a ship."""
LOGS = re.compile(
    r"(?:sys|event|audit|access|error|e?mail|activity|mod)logs?|watchdog|\w*searchindex|(?:outgoing|sent|queued)mails?"
)
QUEUED = _words("queue payload attempts exception reserved handler")
"""Words of columns of which a queue of jobs has two, whatever it is called."""
BROUGHT = _words("""
    country state region city currency language locale tax unit menu module plugin theme route type role group format
    field option status url meta
""")
"""Nouns of lists of names that come filled with applications. They decide only where prose is what people look for."""
REPLIES = _words("comment remark reply answer response message note review annotation")
"""Nouns of what people say about a row: it belongs to it, though it has a subject of its own."""
COPIES = (*VERSIONS, "history", "archive", "backup", "snapshot", "search", "index", "copy", "trash")
"""Ends of nouns of tables with what other tables have, too: their texts have to prove it."""
RECEIVERS = _words("recipient receiver addressee participant")
"""Words of columns and tables by which a message is for some persons alone."""
REPORTS = _words("report flag abuse complaint")
"""Nouns of what moderators are told of another row."""
OWN = _words("bookmark favorite favourite wishlist watchlist")
"""Nouns of lists that only their owner sees."""
FILES = _words("attachment file image upload")
"""Nouns of what a row has beside its text, which says nothing of who may see it."""

# --- Who may see a row ---

FOR_FEW = _words("private confidential secret internal restricted geheim vertraulich intern privé privado")
SURE = FOR_FEW | _words("deleted trash trashed spam hidden draft entwurf brouillon borrador")
"""Words that say of a row that few may see it, whatever the column is called, and as names of tables and labels."""
HIDE = SURE | _words("""
    hide delete removed withdrawn revoked retracted takedown embargo embargoed quarantined suppressed unlisted excluded
    exclude noindex personal invisible unpublished versteckt prive
""")
SHOW = _words("""
    public publish published visible visibility listed shown show searchable approved released oeffentlich
    veroeffentlicht sichtbar publie publico
""")
"""Words that say of a row that it is for everybody."""
OFF, ON = _words("disabled inactive expired obsolete"), _words("active enabled valid available current recent latest")
"""Weaker words, of whether a thing is in use: they hide a minority alone."""
NOT = _words("non not no never dont nicht")
"""Words that turn the others round, and with them `un`, `in`, `dis` before another."""
BANNED = _words("blocked banned suspended spammer shadowbanned")
"""What hides the rows of an account."""
MODERATORS = _words("staff admin moderator teacher tutor instructor librarian")
READERS = MODERATORS | _words("login password invite")
"""With PERSONS, who alone may read a row whose flag says `only` or `required`."""
FILLERS = _words("from for flag search everyone website only people index soft publicly")
STATES = _words("status state stage moderation workflow approval class statut")
FILLERS |= STATES
"""Words that say nothing beside those that hide or show, with all words of up to three letters."""
SECRECY = _words("visibility privacy access confidentiality sensitivity secrecy audience scope policy")
"""Last words of columns whose values say who may see a row; SECRECY says nothing else."""
GROUPS = _words("group role team permission")
"""Nouns of tables and columns of who may read: rows that name one are for few, if most name none."""
WORK = _words("ticket task job order request issue case project invoice")
"""Nouns of what people work on: there a state says how far they are."""
LISTS = FOR_FEW | _words("restriction hidden embargo takedown unlisted blacklist blocklist")
"""Nouns of tables whose rows name what is hidden."""
WRITTEN = REPLIES | _words("post topic entry")
"""Nouns of what people write under the eyes of moderators."""
HELD = _words("hold held waiting pending moderated flagged rejected accepted")
"""Values and flags by which a moderator holds back what people write; on tickets they are states of work."""
PRIVATE = re.compile(r"(?:priv(?:ate)?|direct|personal|scheduled)(?:msg|message|mail|post|statuse?)|[pd]m")
"""What tables of what persons wrote to each other, or shall be read later, are called."""
ROOMS, DIRECT = _words("channel conversation room chat"), _words("direct dm")
UNTIL, FROM = _words("until till expires expiry expiration to"), _words("from since embargo start release at")
BETWEEN = _words("valid visible available effective publish published")
"""With a word of BETWEEN, those of UNTIL and FROM are times between which a row may be seen."""
SHOWN = _words("""
    priority severity language locale lang kind type category country currency format resolved closed completed done
    finished created edited modified modification updated pinned sticky featured due start started read year seen
    views likes votes count total size rating score position version gender suffix color url source price amount num
    page allow
""")
"""Words of columns that say something else of a row than who may see it."""
YES, NO = _words("y yes t true 1 on ja oui"), _words("n no f false 0 off nein non")
