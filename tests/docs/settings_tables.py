"""The tables of docs/configuration.md, made from the settings: `python -m
tests.docs.settings_tables` writes them."""

import json
import re
from pathlib import Path

from pydantic import BaseModel, SecretStr

from rag_index.care.effective_settings import descriptions
from rag_index.core.settings import SECTIONS, IndexSettings, Settings
from rag_index.core.settings.parts import JoinSettings, PartSettings, keys_of
from rag_index.core.settings.project import TOP_KEYS
from rag_index.core.settings.sections import ContextSettings, GateSettings, ServerSettings
from rag_index.core.settings.visible import VisibleSettings

TABLE = re.compile(r"^[|].*(?:\n[|].*)*", re.MULTILINE)
PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
MODELS: dict[str, type[BaseModel]] = {
    "### Top of the file": Settings,
    **{f"### `[{name}]`": model for name, model in SECTIONS.items()},
    "### `[store.server]`": ServerSettings,
    "### `[[indexes]]`": IndexSettings,
    "### `[indexes.gate]`": GateSettings,
    "### `[indexes.context]`": ContextSettings,
    "### `[indexes.joins.NAME]`": JoinSettings,
    "### `[[indexes.parts]]`": PartSettings,
    "### `[indexes.visible.NAME]`": VisibleSettings,
}


def default_cell(value: object) -> str:
    """Return a default as the file would have it, or a dash."""
    if value is None or isinstance(value, BaseModel):
        return "–"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{json.dumps(str(value) if isinstance(value, Path) else value)}`"


def table_of(model: type[BaseModel]) -> str:
    """Return the table with the keys of a model, their defaults and what they mean."""
    lines, meanings = ["| key | default | meaning |", "|---|---|---|"], descriptions(model)
    for key, field in keys_of(model).items():
        if model is not Settings or key in TOP_KEYS:
            default = "required" if field.is_required() else default_cell(field.default)
            meaning = meanings[key].replace("|", "\\|")
            lines.append(f"| `{key}` | {default} | {meaning} |")
    return "\n".join(lines)


def with_tables(page: str) -> str:
    """Return the page with the table under each heading as the settings are now."""
    for heading, model in MODELS.items():
        head, found, rest = page.partition(f"{heading}\n")
        assert found, f"there is no heading {heading!r}"
        page = head + found + TABLE.sub(table_of(model).replace("\\", "\\\\"), rest, count=1)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
