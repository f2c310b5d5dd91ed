"""A project on disk as a user has it: a SQLite source, a rag-index.toml, and ways to run it and
read the result."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rag_index.cli import main
from rag_index.components.ledger import Ledger
from rag_index.components.stores import open_store
from rag_index.components.stores.protocol import Store
from rag_index.core.reports.outcome import RunReport
from rag_index.core.settings import Settings, load_settings, run_settings
from rag_index.etl.opened import RunOptions
from rag_index.orchestration.launch import run_locally
from rag_index.orchestration.prefect_api import result_of
from tests.forked_program import PROGRAM, run_program

__all__ = ["PROGRAM", "SETTINGS", "WORDS", "Project", "body", "run_here"]

SETTINGS = """\
project = "test"
[source]
url = "sqlite:///source.db"
{extra}
[[indexes]]
name = "notes"
table = "note"
key = "id"
text = ["title", "body"]
payload = ["author", "priority"]
chunk_chars = 200
chunk_overlap = 20
"""

WORDS = "printer network password invoice keyboard server monitor license update backup account mail".split()


@dataclass
class Project:
    """A project in `folder`; `extra` is TOML that goes before the indexes."""

    folder: Path
    extra: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = self.folder / "rag-index.toml"
        self.write_settings(SETTINGS.format(extra=self.extra))
        with self.source() as db:
            columns = "id INTEGER PRIMARY KEY, title TEXT, body TEXT, author TEXT, priority INTEGER"
            db.execute(f"CREATE TABLE note ({columns})")

    def write_settings(self, text: str) -> None:
        self.config.write_text(text, encoding="utf-8")

    def source(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / "source.db", timeout=30)

    def fill(self, count: int, *, first: int = 1) -> Project:
        """Add `count` notes, of which every tenth is long enough for several chunks."""
        with self.source() as db:
            rows = [
                (i, f"Note {i}", body(i), f"author {i % 7}", i % 3)
                for i in range(first, first + count)
            ]
            db.executemany("INSERT INTO note VALUES (?, ?, ?, ?, ?)", rows)
        return self

    def execute(self, statement: str, *values: Any) -> None:
        with self.source() as db:
            db.execute(statement, values)

    def attach(self, data: bytes, where: str) -> None:
        """Give some notes a file, in a column whose text belongs to the documents from now on."""
        self.execute("ALTER TABLE note ADD COLUMN file BLOB")
        self.execute(f"UPDATE note SET file = ? WHERE {where}", data)
        texts = 'text = ["title", "body"]'
        text = 'text = ["title", "body", "file"]\nformat = {file = "file"}'
        self.write_settings(self.config.read_text(encoding="utf-8").replace(texts, text))

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    def run(self, *names: str, wait: float | None = None, **options: bool) -> RunReport:
        """Run indexes in this process as a user does without Prefect, with the steps of the flow in
        its order."""
        settings = run_settings(self.config, serial=True, wait=wait)
        return run_locally(settings, settings.named(list(names) or None), RunOptions(**options))

    def index(self, *names: str, **parameters: Any) -> RunReport:
        """Run the flow in this process, against the session's Prefect server."""
        from flows.index_all import index_all

        options = RunOptions(**parameters)
        state = index_all(
            config=str(self.config), indexes=list(names) or None, options=options, return_state=True
        )
        report = result_of(state)
        assert isinstance(report, RunReport), state
        return report

    def cli(
        self, *arguments: str, timeout: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the program as a user does."""
        return run_program(
            ["--config", str(self.config), *arguments], os.environ | environment, timeout=timeout
        )

    def json(self, *arguments: str, code: int = 0, **environment: str) -> dict[str, Any]:
        """Return the document that --json prints, which must be the only thing on standard
        output."""
        ended = self.cli(*arguments, "--json", **environment)
        assert ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
        value: dict[str, Any] = json.loads(ended.stdout)
        return value

    def store(self) -> closing[Store]:
        """Return the store, which leaving a `with` block closes."""
        return closing(open_store(self.settings.store))

    def ledger(self) -> closing[Ledger]:
        """Return the ledger, which leaving a `with` block closes."""
        return closing(Ledger(self.settings.ledger_url))

    def points(self, index: str = "notes") -> dict[str, tuple[dict[str, Any], list[float]]]:
        """Return the payload and the vector of each live point, by point id."""
        with self.store() as store:
            found = store.points(self.settings.alias(index)).scroll(vectors=True)
            return {point.id: (point.payload, list(point.vector or [])) for point in found}

    def texts(self, index: str = "notes") -> dict[str, list[str]]:
        """Return the texts of each document's chunks, in order, by document id."""
        chunks: dict[str, list[tuple[int, str]]] = {}
        for payload, _ in self.points(index).values():
            ours = payload["_rag"]
            chunks.setdefault(ours["document_id"], []).append((ours["chunk"], ours["text"]))
        return {document: [text for _, text in sorted(parts)] for document, parts in chunks.items()}


def run_here(config: Path, *arguments: object, code: int = 0) -> tuple[str, str]:
    """Run the program in this process, since starting Python takes longer than most commands;
    return what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(["--config", str(config), *map(str, arguments)])
    assert ended.value.code == code, (out.getvalue(), err.getvalue())
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()


def body(i: int) -> str:
    words = " ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 9))
    return f"The {words} of ticket {i} does not work." * (6 if i % 10 == 0 else 1)
