"""The generated service desk."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from rag_index.errors import SettingsError
from rag_index.samples import servicedesk
from rag_index.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

SEED_1 = "28a7db76e0a824634e877dc15dee115a672e5e4f9402598e8e557a89be266e56"
"""SHA-256 of all rows of 2,000 documents. Change it only with the texts; benchmarks before and after then differ."""


def rows(path: Path, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()


def all_rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {table: rows(path, table) for table in servicedesk.TABLES}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("servicedesk") / "desk.db"
    servicedesk.write(path, documents=4_000)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.db"
    servicedesk.write(path, documents=2_000)
    return path


@pytest.mark.parametrize("documents", [5, 11, 999, 214_072, 1_000_000])
def test_sizes_add_up(documents: int) -> None:
    sizes = servicedesk.table_sizes(documents)
    assert sum(sizes.values()) == documents
    assert min(sizes.values()) >= 1
    assert sizes["title"] == sizes["description"]


@pytest.mark.parametrize("documents", [4, 0, -1])
def test_too_few_documents_are_refused_before_anything_is_written(tmp_path: Path, documents: int) -> None:
    with pytest.raises(SettingsError, match=f"{documents} documents are too few for 5 tables; ask for 5 or more"):
        servicedesk.write(tmp_path / "desk.db", documents=documents)
    assert list(tmp_path.iterdir()) == []


def test_the_seed_decides_everything_in_every_version_of_python(small: Path, tmp_path: Path) -> None:
    content = json.dumps(all_rows(small), sort_keys=True).encode()
    assert hashlib.sha256(content).hexdigest() == SEED_1
    servicedesk.write(tmp_path / "other.db", documents=2_000, seed=2)
    assert all_rows(tmp_path / "other.db")["comment"] != all_rows(small)["comment"]


def test_a_document_is_the_same_in_a_larger_desk(small: Path, desk: Path) -> None:
    for table, found in all_rows(small).items():
        larger = rows(desk, table)[: len(found)]
        count = len(found) * 9 // 10  # the last ones have tickets that the small desk does not have
        assert found[:count] == larger[:count], table


def test_texts_can_be_stored_anywhere(desk: Path) -> None:
    """Texts have no NUL, which PostgreSQL refuses, no lone surrogates, which UTF-8 refuses, and no unfilled slot."""
    for found in all_rows(desk).values():
        for row in found:
            for text in row[6:]:
                assert "\0" not in (text or "")
                (text or "").encode()
                assert not re.search(r"\{[a-z]+\}", text or "")


def test_the_settings_load_and_fit_the_tables(small: Path) -> None:
    config = small.with_name("rag-index.toml")
    config.write_text(servicedesk.scaffold(small.name), encoding="utf-8")
    settings = load_settings(config)
    assert settings.source_url.database == str(small)
    names = ["comments", "descriptions", "solutions", "titles", "worklogs"]
    assert [index.name for index in settings.indexes] == names
    with closing(sqlite3.connect(small)) as connection:
        for index in settings.indexes:
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({index.table})")}
            assert columns == {*index.key_columns, *index.text_columns, *index.payload}


def test_a_database_name_with_quotes_and_backslashes_survives_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "rag-index.toml"
    config.write_text(servicedesk.scaffold('C:\\desk "1".db'), encoding="utf-8")
    assert load_settings(config).source.url.get_secret_value() == 'sqlite:///C:\\desk "1".db'
