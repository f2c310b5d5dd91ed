"""Values that look like password hashes, tokens or keys, alone or within a text, whatever the name of
their column is."""

from __future__ import annotations

import itertools
import re
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MASK = "[secret]"
"""What a text has in place of a secret."""
MAX_SECRET_CHARS = 4000
"""Characters of a text in which `looks_secret` searches. Chosen; nothing depends on it."""
MIN_DIGITS = 3
"""The fewest digits of a random word that is named as a secret."""
_HASH = re.compile(
    r"\$(?:2[abxy]?\$\d\d\$[./\w]*|(?:argon2|pbkdf2)[\w-]*\$\S+|[PHS]\$[./A-Za-z0-9]{8}[./$\w]*"
    r"|[156]\$(?:rounds=\d+\$)?[./A-Za-z0-9]{1,16}\$[./\w]{8,}"
    r"|(?:(?<=pbkdf2_sha256\$)|(?<=sha1\$)|(?<=sha256\$)|(?<=sha512\$)|(?<=scrypt\$))\S+)"
    r"|(?:pbkdf2:\w+:\d+|scrypt:\d+:\d+:\d+)\$\S+"
    r"|\$(?:7|8|y|gy|apr1)\$[\w./$]{20,}|!bcrypt!\d\d!\S+|SCRAM-SHA-\d+\$\S+|AQAAAA[A-Za-z0-9+/]{50,}=*"
    r"|\{(?:S?SHA\d*|S?MD5|CRYPT|PBKDF2\w*)\}[\w+/=.$-]{13,}|:pbkdf2:\w+:\d+:\S+|(?<!\w)\*[0-9A-F]{40}(?!\w)"
)
"""Password hashes of known kinds, such as $2b$10$…, pbkdf2:sha256:…, {SSHA}… and those of MySQL."""
_HASHES_HAVE = {"$": ("$",), "{": ("{",), "!": ("!bcrypt!",), ":": (":pbkdf2:",), "Q": ("AQAAAA",)}
_KEY = re.compile(
    r"(?<![\w-])eyJ[\w-]{8,}+\.eyJ[\w-]+[.\w-]*|-----BEGIN [A-Z ]*(?:KEY|CERTIFICATE)"
    r"(?:(?:(?!-----BEGIN ).)*?-----END [A-Z -]*|[A-Z -]*(?:\s*[\w-]+:"
    r" [^\n]*\n)*+(?:[\s\\>]*+[\w+/=]{20,}+)*+)"
    r"|(?<![A-Za-z0-9])(?:(?:sk|rk|pk|cs)_(?:live|test)_[A-Za-z0-9]{10,}\w*|gh[pousr]_[A-Za-z0-9]{20,})"
    r"|xox[abprs]-[\w-]+|AKIA[0-9A-Z]{12,}|AIza[\w-]{30,}|glpat-[\w-]{16,}|otpauth://\S+|\d{8,10}:AA[\w-]{33}"
    r"|(?<![\w-])(?:github_pat_|whsec_|hf_|npm_|shp[a-z]{2}_|do[opr]_v1_|lin_api_|figd_|pypi-|sk-|sq0[a-z]{3}-|GOCSPX-|ya29\."
    r"|SG\.|hvs\.|ATATT)(?=[\w.-]{0,99}?(?<![A-Za-z0-9])[A-Za-z]*\d[A-Za-z0-9]{12,})[\w.-]{20,}",
    re.DOTALL,
)
"""Keys of known kinds. One without an end ends where its lines are no longer those of a key."""
_KEYS_HAVE = {
    "J": ("eyJ",),
    "x": ("xox",),
    "A": ("AKIA", "AIza", "ATATT", ":AA"),
    "-": ("-----BEGIN ", "glpat-", "pypi-", "sk-"),
    "q": ("sq0",),
    "X": ("GOCSPX",),
    "9": ("ya29.",),
    "G": ("SG.",),
    "v": ("hvs.",),
    ":": ("otpauth:",),
    "_": (
        "_live_",
        "_test_",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "_pat_",
        "whsec_",
        "hf_",
        "npm_",
        "shp",
        "_v1_",
        "_api_",
        "figd_",
    ),
}
"""What a text with a key contains, by a character of it: searching for a character takes a fraction
of the time."""
_GIVEN = re.compile(r"[=:/][ \t]?[\"']?(?=[\w.~%+-]*\d)([\w.~%+-]{12,}=*)")
"""A word with digits that is the value of something, or in an address."""
_SECRETLY = re.compile(
    r".*?(?:[?&;#][\w.-]*(?:key|code|hash|sig|signature|auth|sid|session|nonce|otp)"
    r"|(?:token|secret|passw(?:or)?d|pwd|credentials?|jwt)"
    r"|(?:api|access|auth|private|reset|activation|confirm(?:ation)?|session|login|verification)["
    r" _-]?(?:key|code)"
    r"|/(?:[\w-]*[_-])?(?:reset|confirm|activat|verif|unsubscri|invit|opt-?in|magic[_-]?link)[\w-]*(?:/\w{1,12}){0,2}"
    r"|(?:/[\w-]*webhook\w*(?:/\d*)?|://hooks?\.[\w./]*))[\"'\])]*",
    re.IGNORECASE | re.DOTALL,
)
"""What precedes a secret: the parameter of a link, `API key`, or a path such as `/reset-password`."""
_PASSWORD = re.compile(
    r"://[^\s/:@\"'<>]*:([^\s/:@\"'<>]{3,})(?=@)|://([0-9a-f]{32})(?=@)"
    r"|(?:passw(?:or)?[dt]|passwd|pwd|kennwort|passphrase|(?:account|access)key)[\"']?\s*(?:[=:]|\bis\b)\s*[\"']?"
    r"(?![$%{<(\[])(?=\S*\d)(?=\S*[a-z])([^\s\"'<>;,&()]{6,})"
    r"|\b(?:bearer|basic) (?=\S*\d)([\w+/=.~-]{20,})",
    re.IGNORECASE,
)
"""A password in a URL, or after a word such as "password:" or "Bearer"."""
_PASSWORDS_HAVE = {
    "w": ("assw", "pwd", "ennwort"),
    "W": ("PASSW", "PWD"),
    "K": ("ccountKey", "ccessKey"),
    "B": ("Bearer ", "Basic "),
    "@": ("://",),
    "p": ("assphrase",),
}
_FILE = re.compile(r".*\.[a-z]{2,4}")
"""The name of a file, such as report2024a.pdf, which is no token."""
_THINGS = ("sessions", "cookies", "passes", "salts")
"""The ends of names that secrets have, and things, too: the sessions of a conference."""
_WORD = re.compile(
    r"(?<![^\s(\"'])[^\W\d_](?:[^\W\d_A-Z]*|[A-Z]*)(?=[-'\u2019.,;:!?)\"]*(?:[\s-]|$))"
)
"""A word of a language: all capitals, or none after the first letter."""
_CODES = re.compile(r"\w{4}(?:[ -]\w{4}){2,}")
"""Groups of four characters, such as recovery codes."""
_NO_TOKEN = re.compile(
    r"[\d.,/-]+ [^\W\d_]{1,6}\.?\Z|.*[\u0e00-\u0eff\u1000-\u17ff\u3040-\u9fff\uac00-\ud7af]{2}"
)
"""A quantity, or letters of languages that put no spaces between words."""
_PIECE = re.compile(r"\S{6,}")
"""A word of prose that may be a token."""
MAX_BEFORE = 60
"""Characters before a word in which its name as a secret is searched. Chosen; nothing depends on
it."""
_RANDOM = re.compile(r"(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[A-Za-z0-9+/=_.$:-]{24,}")
"""Letters and digits that may be random."""
UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
PLACE = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://|www\.|/)\S+|(?=[^\s/]++/\S)\S+\.\w{2,5}|/[^\n]+\.\w{2,5}|[\w-]+\.(?:png|jpe?g|gif|pdf|svg|webp|mp4|docx?)",
    re.IGNORECASE,
)
"""A URL, a path, or the name of a file."""


def without_secrets(text: str) -> str:
    """Return a text with a mask in place of password hashes, keys of known kinds, and tokens that
    are named as such.

    Such a token is a random word of 12 characters or more after `token:`, `?key=` or in a link such
    as `/reset/…`.
    """
    # Nothing random lacks digits, and most texts have none.
    if "-----BEGIN " not in text and not any(map(text.__contains__, string.digits)):
        return text
    if _has(text, _HASHES_HAVE):
        text = _HASH.sub(MASK, text)
    if _has(text, _KEYS_HAVE):
        text = _KEY.sub(MASK, text)
    if _has(text, _PASSWORDS_HAVE):
        text = _PASSWORD.sub(_mask_password, text)
    return _GIVEN.sub(_mask_named, text)


def masked_prose(key: str, text: str, *, is_field: bool = False) -> str:
    """Return the text below a key with the name of a secret if it is prose, with a mask in place of
    what looks like a token; otherwise "".

    Args:
        is_field: Whether the text is a field of the object below the key. In the sessions of a
            conference, a title may be one word.
    """
    masked = without_secrets(text)
    words = _WORD.findall(masked)
    pieces = masked.split()
    # "The printer is on the second floor": two words or more, and half of it.
    has_sentence = len(words) > 1 and max(map(len, words)) > 2 and 2 * len(words) >= len(pieces)
    is_prose = has_sentence or _NO_TOKEN.match(text) is not None
    if is_field and key.lower().endswith(_THINGS):
        # A title such as "Welcome", or a number
        is_plain = is_prose or words == pieces or text.isdecimal()
        return text if is_plain else ""
    # A passphrase is prose as well.
    if not is_prose or _CODES.fullmatch(text) or "phrase" in key.lower():
        return ""
    return _PIECE.sub(_without_token, masked)


def _without_token(piece: re.Match[str]) -> str:
    """Return a piece of a text, or a mask if it has both letters and digits."""
    text = piece[0]
    is_token = re.search("[0-9]", text) and re.search("[A-Za-z]", text)
    return MASK if is_token else text


def _has(text: str, words_by_character: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a text has one of several words. Each has the character that it is listed by:
    searching for that one first takes a quarter of the time."""
    for character, words in words_by_character.items():
        if character in text and any(map(text.__contains__, words)):
            return True
    return False


def _mask_password(found: re.Match[str]) -> str:
    """Return what was found with a mask in place of the password, which is its last group."""
    password = found[found.lastindex or 0]
    return found[0].replace(password, MASK)


def _mask_named(given: re.Match[str]) -> str:
    """Return a word with what precedes it, masked if that names a secret and the word is random."""
    word = given[1]
    start = given.start()
    first = max(0, start - MAX_BEFORE)
    if _SECRETLY.fullmatch(given.string, first, start) is None:
        return given[0]
    digits = sum(map(str.isdigit, word))
    if digits < MIN_DIGITS or not _is_random(word) or _FILE.fullmatch(word):
        return given[0]
    return given[0].replace(word, MASK)


def looks_secret(value: object) -> bool:
    """Return whether a value looks like a password hash, a token or a key."""
    if not isinstance(value, str):
        return False
    text = value.strip()
    for pattern in (_HASH, _KEY):
        if pattern.search(text, 0, MAX_SECRET_CHARS):
            return True
    # One random word that is no URL, path or UUID
    if _RANDOM.fullmatch(text) is None or PLACE.fullmatch(text) or UUID.fullmatch(text):
        return False
    return _is_random(text)


def _is_random(text: str) -> bool:
    """Return whether letters and digits alternate as often as in random text: rarely in names and
    paths."""
    kinds = "".join(map(_kind_of, text))
    changes = sum(before != after for before, after in itertools.pairwise(kinds))
    others = kinds.count("-")
    return changes >= len(text) / 5 and "--" not in kinds and others <= len(text) / 8


def _kind_of(character: str) -> str:
    """Return d for a digit, u for an upper-case and l for a lower-case letter, - for others."""
    # "aB3-" becomes "lud-".
    if character.isdigit():
        return "d"
    if character.isupper():
        return "u"
    return "l" if character.islower() else "-"
