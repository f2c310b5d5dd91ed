"""Values that look like password hashes, tokens or keys, whatever their column is called, alone or
within a text."""

from __future__ import annotations

import itertools
import re
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MASK = "[secret]"
MAX_SECRET_CHARS = 4000
"""What is looked at of a text for whether it holds one."""
MIN_DIGITS = 3
_HASH = re.compile(
    r"\$(?:2[abxy]?\$\d\d\$[./\w]*|(?:argon2|pbkdf2)[\w-]*\$\S+|[PHS]\$[./A-Za-z0-9]{8}[./$\w]*"
    r"|[156]\$(?:rounds=\d+\$)?[./A-Za-z0-9]{1,16}\$[./\w]{8,}"
    r"|(?:(?<=pbkdf2_sha256\$)|(?<=sha1\$)|(?<=sha256\$)|(?<=sha512\$)|(?<=scrypt\$))\S+)"
    r"|(?:pbkdf2:\w+:\d+|scrypt:\d+:\d+:\d+)\$\S+"
    r"|\$(?:7|8|y|gy|apr1)\$[\w./$]{20,}|!bcrypt!\d\d!\S+|SCRAM-SHA-\d+\$\S+|AQAAAA[A-Za-z0-9+/]{50,}=*"
    r"|\{(?:S?SHA\d*|S?MD5|CRYPT|PBKDF2\w*)\}[\w+/=.$-]{13,}|:pbkdf2:\w+:\d+:\S+|(?<!\w)\*[0-9A-F]{40}(?!\w)"
)
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
"""What a text with a key has in it, by a character, which is looked for in a fraction of the
time."""
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
"""What stands before a secret: the parameter of a link, `API key`, or a path such as
`/reset-password`."""
_SAID = re.compile(
    r"://[^\s/:@\"'<>]*:([^\s/:@\"'<>]{3,})(?=@)|://([0-9a-f]{32})(?=@)"
    r"|(?:passw(?:or)?[dt]|passwd|pwd|kennwort|passphrase|(?:account|access)key)[\"']?\s*(?:[=:]|\bis\b)\s*[\"']?"
    r"(?![$%{<(\[])(?=\S*\d)(?=\S*[a-z])([^\s\"'<>;,&()]{6,})"
    r"|\b(?:bearer|basic) (?=\S*\d)([\w+/=.~-]{20,})",
    re.IGNORECASE,
)
"""A password in an address, or after a word that says so."""
_SAID_WITH = {
    "w": ("assw", "pwd", "ennwort"),
    "W": ("PASSW", "PWD"),
    "K": ("ccountKey", "ccessKey"),
    "B": ("Bearer ", "Basic "),
    "@": ("://",),
    "p": ("assphrase",),
}
_FILE = re.compile(r".*\.[a-z]{2,4}")
_THINGS = ("sessions", "cookies", "passes", "salts")
"""The ends of names that things have, too, whose fields say what they are."""
_WORD = re.compile(
    r"(?<![^\s(\"'])[^\W\d_](?:[^\W\d_A-Z]*|[A-Z]*)(?=[-'\u2019.,;:!?)\"]*(?:[\s-]|$))"
)
"""A word of a language, as capitals and small letters stand in it."""
_CODES = re.compile(r"\w{4}(?:[ -]\w{4}){2,}")
_NO_TOKEN = re.compile(
    r"[\d.,/-]+ [^\W\d_]{1,6}\.?\Z|.*[\u0e00-\u0eff\u1000-\u17ff\u3040-\u9fff\uac00-\ud7af]{2}"
)
"""A quantity, or letters of languages that put no spaces between words."""
_PIECE = re.compile(r"\S{6,}")
MAX_BEFORE = 60
_RANDOM = re.compile(r"(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[A-Za-z0-9+/=_.$:-]{24,}")
UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
PLACE = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://|www\.|/)\S+|(?=[^\s/]++/\S)\S+\.\w{2,5}|/[^\n]+\.\w{2,5}|[\w-]+\.(?:png|jpe?g|gif|pdf|svg|webp|mp4|docx?)",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Return a text with a mask in place of password hashes, keys of known kinds, and tokens that
    are named as such. The latter are random words of 12 characters or more after `token:`, `?key=`
    or in a link such as `/reset/…`."""
    if "-----BEGIN " not in text and not any(
        map(text.__contains__, string.digits)
    ):  # nothing random lacks digits
        return text
    for pattern, marks in ((_HASH, _HASHES_HAVE), (_KEY, _KEYS_HAVE)):
        if _has(text, marks):
            text = pattern.sub(MASK, text)
    if _has(text, _SAID_WITH):
        text = _SAID.sub(lambda found: found[0].replace(found[found.lastindex or 0], MASK), text)
    return _GIVEN.sub(_mask_named, text)


def said_in_words(key: str, text: str, *, is_field: bool = False) -> str:
    """Return a text that its key names as a secret if it is prose, with a mask in place of what
    looks like a token; "" if it is none. `is_field` says that the key is that of an object with the
    text, such as the sessions of a conference, whose titles may be one word."""
    masked = without_secrets(text)
    words, pieces = _WORD.findall(masked), masked.split()
    many = len(words) > 1 and max(map(len, words)) > 2 and 2 * len(words) >= len(pieces)
    is_prose = many or _NO_TOKEN.match(text) is not None
    if is_field and key.lower().endswith(_THINGS):
        return text if is_prose or words == pieces or text.isdecimal() else ""
    if not is_prose or _CODES.fullmatch(text) or "phrase" in key.lower():
        return ""
    return _PIECE.sub(_without_token, masked)


def _without_token(piece: re.Match[str]) -> str:
    """Return a piece of a text, or a mask in place of one with both letters and digits."""
    text = piece[0]
    return MASK if re.search("[0-9]", text) and re.search("[A-Za-z]", text) else text


def _has(text: str, kinds: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a text has one of several words; that it lacks a character is found out four
    times as fast."""
    return any(mark in text and any(map(text.__contains__, some)) for mark, some in kinds.items())


def _mask_named(given: re.Match[str]) -> str:
    word, start = given[1], given.start()
    named = _SECRETLY.fullmatch(given.string, max(0, start - MAX_BEFORE), start) is not None
    masked = (
        named
        and sum(map(str.isdigit, word)) >= MIN_DIGITS
        and _is_random(word)
        and not _FILE.fullmatch(word)
    )
    return given[0].replace(word, MASK) if masked else given[0]


def looks_secret(value: object) -> bool:
    """Return whether a value looks like a password hash, a token or a key, whatever its column is
    called."""
    if not isinstance(value, str):
        return False
    text = value.strip()
    is_named = PLACE.fullmatch(text) or UUID.fullmatch(text)
    shows = any(kind.search(text, 0, MAX_SECRET_CHARS) for kind in (_HASH, _KEY))
    return shows or (_RANDOM.fullmatch(text) is not None and not is_named and _is_random(text))


def _is_random(text: str) -> bool:
    """Return whether letters and digits alternate as they do in random text, and hardly in names
    and paths."""
    kinds = "".join(
        "d" if c.isdigit() else "u" if c.isupper() else "l" if c.islower() else "-" for c in text
    )
    changes = sum(before != after for before, after in itertools.pairwise(kinds))
    return changes >= len(text) / 5 and "-" * 2 not in kinds and kinds.count("-") <= len(text) / 8
