"""Messages about invalid settings: one line with the place, the value and the remedy."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from rag_index.settings.environment import TOP_KEYS, entries_of, keys_of, tables_of
from rag_index.settings.renamed import new_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError

    from rag_index.settings.environment import Place

EXPECTED = {
    "workers": 'should be a whole number above 0 or "auto"',
    "shard_documents": 'should be a whole number above 0 or "auto"',
    "key": "should be the name of a column, or a list of names",
    "text": "should be the name of a column, a list of names, or a template",
    "depends_on": 'should be a list of tables: [{table = "customer", key = "id", column = "customer_id"}]',
    "metric": "should be a measure and a number of hits, such as recall@10, MRR@10 or nDCG@10",
}
"""Messages for keys whose values may have several types, for each of which pydantic reports an error."""
TYPE_MESSAGES = {
    "string_pattern_mismatch": "should contain only letters, digits, - and single _ between them",
    "string_type": "should be a text in quotes",
    "model_type": "should be a table of keys",
    "list_type": 'should be a list, for example ["one", "two"]',
    "too_short": "should have at least one entry",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "finite_number": "should be a number",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
}
"""Messages by type of error, in place of those of pydantic that are meant for programmers."""
MISSING_REMEDIES = {
    "source": 'its url is the database to read, for example url = "sqlite:///file.db"',
    "source.url": "it is the database to read, for example sqlite:///file.db",
    "indexes": "each names a table, its key and its text; `rag-index init --source URL` suggests them",
    "indexes.name": "give each index its own name",
    "indexes.key": "name the column or columns that identify a document",
    "indexes.text": "name the columns that the text consists of",
    "indexes.root": "name the folder with the files",
    "indexes.depends_on": "an entry has table, key (a column of that table) and column (of the index)",
    "indexes.gate.queries": 'name a golden file, which has queries and what each should find, such as "golden.jsonl"',
    "indexes.context.model": "name a generative model of the Ollama servers, for example llama3.2",
}
ORDER = ("extra_forbidden", "missing")


class _Location(NamedTuple):
    """The location of an error: its place in the file, the model there, and its names for a person."""

    place: Place
    model: type[BaseModel]
    table: str
    key: str


def first_problem(
    exc: ValidationError, root: type[BaseModel], values: Mapping[str, Any], origin: Mapping[Place, str], file: str
) -> str:
    """Return the first error in one line. Unknown keys come first, since they often explain what is missing."""
    errors = exc.errors(include_url=False)
    error = min(errors, key=lambda e: ORDER.index(e["type"]) if e["type"] in ORDER else len(ORDER))
    spot = _locate(error["loc"], root, values)
    variable = origin.get(spot.place)
    message = " ".join(_message(error, spot, variable).split())
    return message if variable else f"{file}: {message}"


def _message(error: Mapping[str, Any], spot: _Location, variable: str | None) -> str:
    kind, message = error["type"], error["msg"]
    separator = ": " if spot.table.startswith("index ") else " "
    where = variable or separator.join(filter(None, [spot.table, spot.key]))
    if kind == "extra_forbidden":
        return _unknown_key(spot)
    if kind == "missing":
        name = ".".join(str(part) for part in spot.place if isinstance(part, str))
        remedy = MISSING_REMEDIES.get(name, "it must be given")
        return f"{where} is missing: {remedy}"
    if kind in ("model_type", "dict_type", "list_type") and len(spot.place) == 1:
        section = spot.place[0]
        form = f"[[{section}]]" if section == "indexes" else f"[{section}]"
        return f"{section} should be a table of keys; begin it with {form} on a line of its own"
    if kind == "value_error":
        message = message.removeprefix("Value error, ")
        if isinstance(error.get("input"), dict | BaseModel):
            return f"{where}: {message}" if where else message
        if message.startswith("should "):
            message = EXPECTED.get(spot.key, message)
    else:
        expected = EXPECTED.get(spot.key) or TYPE_MESSAGES.get(kind)
        message = expected or re.sub(r"^\w+ should", "should", message)
    return f"{where} {message}{_describe_value(error, spot)}"


def _unknown_key(spot: _Location) -> str:
    if renamed := new_name(str(spot.place[0]), spot.key):
        return f"{spot.table} {spot.key} is now {renamed}"
    keys = list(keys_of(spot.model))
    near = get_close_matches(spot.key, keys, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(keys)}"
    return f"unknown key {spot.key!r}{f' in {spot.table}' if spot.table else ''}{hint}"


def _describe_value(error: Mapping[str, Any], spot: _Location) -> str:
    """Return the value for the end of a message, unless the message has it already or it may be a secret."""
    value = f"{error.get('input')!r:.80}"
    secret = spot.key in ("url", "api_key") or ("://" in value and "@" in value)
    if secret or isinstance(error.get("input"), dict | BaseModel):
        return ""
    return f", not {value}" if error["type"] != "value_error" or " should " in error["msg"] else f" (it is {value})"


def _locate(location: tuple[int | str, ...], root: type[BaseModel], values: Mapping[str, Any]) -> _Location:
    """Find the place in the file; the rest of pydantic's location says which of several types it tried."""
    head = location[0] if location else ""
    if len(location) < 2:
        is_section = head in keys_of(root) and head not in TOP_KEYS.values()
        table = f"[{'[indexes]' if head == 'indexes' else head}]" if is_section else ""
        return _Location(location, root, table, "" if is_section else str(head))
    if head != "indexes":
        model = _model_of(root, str(head))
        below = tables_of(model).get(str(location[1]))
        if below is not None and len(location) > 2:
            return _Location(location[:3], below, f"[{head}.{location[1]}]", str(location[2]))
        number = f"[{location[2]}]" if len(location) > 2 and isinstance(location[2], int) else ""
        return _Location(location[:2], model, f"[{head}]", f"{location[1]}{number}")
    index = _index_name(values, location[1])
    model = _model_of(root, "indexes")
    if len(location) == 2:
        return _Location(location, model, index, "")
    if entry := entries_of(model).get(str(location[2])):
        number = f"{location[2]}, entry {int(location[3]) + 1}" if len(location) > 3 else str(location[2])
        if len(location) > 4:
            return _Location(location[:3], entry, f"{index}, {number}", str(location[4]))
        return _Location(location[:3], entry, index, number)
    number = f"[{location[-1]}]" if len(location) > 3 and isinstance(location[-1], int) else ""
    inner = tables_of(model).get(str(location[2]))
    if inner is not None and len(location) > 3:
        return _Location(location[:4], inner, f"{index}, [indexes.{location[2]}]", f"{location[3]}{number}")
    return _Location(location[:3], model, index, f"{location[2]}{number}")


def _model_of(root: type[BaseModel], key: str) -> type[BaseModel]:
    annotation: Any = root.model_fields[key].annotation
    inner = getattr(annotation, "__args__", (annotation,))[0]
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else root


def _index_name(values: Mapping[str, Any], number: int | str) -> str:
    """Return the name of an index for a person, or its number from 1 if it has no name."""
    try:
        name = values["indexes"][number]["name"]
    except (KeyError, IndexError, TypeError):
        name = None
    return f"index {name}" if isinstance(name, str) and name else f"index number {int(number) + 1}"
