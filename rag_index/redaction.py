"""The secrets of this process, and `redacted`, which masks them in messages and logs.

Each message of our errors passes it (`RagIndexError`), and each log record of any logger, with its
traceback: libraries repeat their arguments. Code that reads a secret calls `keep_secret` or
`keep_url`. Settings do so by their type (`Secret`), also in a worker that unpickles them
(`tests/test_redaction.py`).
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from numbers import Number
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

MASK = "***"
MIN_SECRET = 4
"""Characters. A shorter secret is masked only in a URL or an option: it is in any message by
chance."""
MIN_ANYWHERE = 12
"""Characters. A shorter secret of letters and digits is masked only as a complete word, since it
may be a part of others."""
PLAIN_WORDS = frozenset(
    (
        "access",
        "admin",
        "database",
        "default",
        "false",
        "host",
        "index",
        "ledger",
        "localhost",
        "none",
        "null",
        "password",
        "public",
        "reader",
        "secret",
        "source",
        "store",
        "test",
        "token",
        "true",
        "user",
        "username",
    )
)
"""Words of our own messages. As a secret, such a word is masked only in a URL or an option."""
FILE_OPTIONS = frozenset(("passfile", "ssl_key", "sslkey"))
"""Options of a URL that name a file, although they are named like secrets."""
FOREIGN_VARIABLES = frozenset(
    (
        "HF_TOKEN",
        "MYSQL_PWD",
        "PGPASSWORD",
        "PREFECT_API_AUTH_STRING",
        "PREFECT_API_KEY",
        "PREFECT_SERVER_API_AUTH_STRING",
    )
)
"""Variables with secrets that libraries read by themselves."""
_OPTION = re.compile(r"[?&]([^?=&\s]+)=([^&\s#]+)")


def is_secret(option: str) -> bool:
    """Return whether an option is named like a secret: "api_key", "sslpassword"."""
    name = option.lower()
    if name in FILE_OPTIONS:
        return False
    return any(word in name for word in ("pass", "pwd", "secret", "token", "key"))


class _Known:
    """The secrets of a process, and one pattern that finds all their forms."""

    def __init__(self) -> None:
        self._forms: dict[str, bool] = {}
        """Each form of a secret, and whether it is masked anywhere or only in a URL or option."""
        self.pattern: re.Pattern[str] | None = None

    def add(self, secret: str, *, shown: bool) -> None:
        is_rare = len(secret) >= MIN_SECRET and secret.lower() not in PLAIN_WORDS
        everywhere = is_rare and not shown
        before = dict(self._forms)
        for form in _forms_of(secret):
            self._forms[form] = everywhere or self._forms.get(form, False)
        if self._forms != before:
            # A longer form may contain a shorter one.
            longest = sorted(self._forms, key=len, reverse=True)
            patterns = [_pattern_of(form, self._forms[form]) for form in longest]
            self.pattern = re.compile("|".join(patterns))


_KNOWN = _Known()
"""The only global: any object and thread may make a message, and a library has none of our
objects."""


def redacted(text: str) -> str:
    """Return a text with a mask in place of each secret of this process."""
    if _KNOWN.pattern is None:
        return text
    return _KNOWN.pattern.sub(MASK, text)


def keep_secret(secret: str, *, shown: Iterable[str | None] = ()) -> None:
    """Register a secret for redaction in messages and logs of this process. A secret that is also
    `shown`, as if user and password are the same word, is masked only in a URL or an option."""
    if secret.strip():
        if _KNOWN.pattern is None:
            _redact_logs()
        _KNOWN.add(secret, shown=secret in shown)


def keep_url(url: str) -> None:
    """Register the password of a URL, and the values of its options with secret-looking names, for
    redaction: both as written and percent-decoded."""
    scheme, _, rest = url.strip().partition("://")
    authority = re.split("[/?#]", rest)[0]
    userinfo, at, location = authority.rpartition("@")
    _keep_login(userinfo if at else "", location)
    # A password in a database URL may have any character but @, such as / and #.
    if not scheme.startswith("http"):
        userinfo, at, location = rest.partition("@")
        _keep_login(userinfo if at else "", location)
    for name, value in _OPTION.findall(rest):
        if is_secret(unquote(name)):
            for form in (value, unquote(value), unquote_plus(value)):
                keep_secret(form)


def _keep_login(userinfo: str, location: str) -> None:
    """Register the password of `user:password`. It may also be shown as the user, or as a part of
    `location`, which is host, database and options."""
    user, _, password = userinfo.partition(":")
    shown = [unquote(user), *re.split("[:/@?&=]", location)]
    for form in (password, unquote(password), unquote_plus(password)):
        keep_secret(form, shown=shown)
    # The header of basic authentication.
    if password:
        login = f"{unquote(user)}:{unquote(password)}".encode("utf-8", "replace")
        keep_secret(b64encode(login).decode())


def keep_environment(environ: Mapping[str, str]) -> None:
    """Register the secrets that libraries read from the environment, and those of the proxies that
    it names."""
    for name, value in environ.items():
        if name.upper() in FOREIGN_VARIABLES:
            keep_secret(value.strip())
        elif name.upper().endswith(("_PROXY", "_URL")):
            keep_url(value)


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error and its causes, as Python prints it, with secrets
    masked."""
    return redacted(_raw_traceback(error))


def _raw_traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _forms_of(secret: str) -> Iterator[str]:
    """Yield the forms of a secret in URLs, HTML, JSON and Python."""
    yield secret
    encoded = [quote(secret, safe=safe) for safe in ("", "/", " +")]
    encoded.append(quote_plus(secret))
    yield from encoded
    # Some libraries write %2F as %2f.
    for form in encoded:
        yield re.sub("%..", lambda code: code[0].lower(), form)
    yield escape(secret)
    # JSON and Python, without the quotation marks.
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield repr(secret.encode("utf-8", "surrogateescape"))[2:-1]


def _pattern_of(form: str, everywhere: bool) -> str:
    escaped = re.escape(form)
    # Only as the value of an option, or the password of a URL: password='form', :form@host
    if not everywhere:
        return rf"(?:(?<=[:=])|(?<=[:=]['\"])){escaped}(?=[@&\s'\"]|$)"
    # Only as a complete word, which an escaped line end may precede: \nform
    if len(form) < MIN_ANYWHERE and form.isalnum():
        return rf"(?:(?<![^\W_])|(?<=\\[nrt])){escaped}(?![^\W_])"
    return escaped


@cache
def _redact_logs() -> None:
    """Redact each log record of any logger and handler, from the first call on."""
    make = logging.getLogRecordFactory()

    def make_redacted(*given: Any, **more: Any) -> logging.LogRecord:
        record = make(*given, **more)
        record.msg = _redact(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(map(_redact, record.args))
        elif record.args:
            record.args = {name: _redact(value) for name, value in record.args.items()}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            raw = _raw_traceback(error)
            text = redacted(raw)
            # A formatter prefers `exc_text` to its own format.
            if text != raw:
                record.exc_text = text.rstrip("\n")
        return record

    logging.setLogRecordFactory(make_redacted)


class _Redacted:
    """A value of a log record that is redacted when it is formatted."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return redacted(str(self._value))

    def __repr__(self) -> str:
        return redacted(repr(self._value))


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if value is None or isinstance(value, Number):
        return value
    return _Redacted(value)
