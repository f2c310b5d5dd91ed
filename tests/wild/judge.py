"""How good the settings of a sample database are: what its users find, and what they must not be
shown."""

import json
import re
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from rag_index.components.stores import open_store
from rag_index.core.settings import load_settings, run_settings
from rag_index.etl.opened import RunOptions
from rag_index.first_run.schema import Answers, scaffold
from rag_index.orchestration.launch import run_locally
from rag_index.search.retriever import Retriever
from tests.wild.sample import Question, Sample


@dataclass
class Verdict:
    """What was found with some settings of a sample database."""

    questions: int
    right: int = 0
    evidence: int = 0
    hidden: list[str] = field(default_factory=list)
    """Words of hidden rows that a search shows or that are in the index."""
    secrets: list[str] = field(default_factory=list)
    """Secrets and personal data in settings, payloads and texts."""
    indexes: int = 0
    empty: int = 0
    documents: int = 0
    init_seconds: float = 0.0
    index_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """Questions whose first hit is another document, with that hit."""


def answers_in(folder: Path | None, name: str) -> Answers | None:
    """Return the answers to the questions about a database in NAME.json; None if there is no such
    file."""
    file = folder / f"{name}.json" if folder else None
    return Answers.read(str(file)) if file and file.exists() else None


def proposed(url: sa.URL, folder: Path, answers: Answers | None = None) -> float:
    """Write what `init` writes into a folder, with the password in the URL; return the seconds that
    it took."""
    began = time.monotonic()
    whole = url.render_as_string(hide_password=False)
    made = scaffold(whole, folder, answers=answers)
    text = re.sub("(?m)^url = .*", lambda _: f"url = {json.dumps(whole)}", made.text, count=1)
    (folder / "rag-index.toml").write_text(text, encoding="utf-8")
    return time.monotonic() - began


def judge(made: Sample, folder: Path, init_seconds: float = 0.0) -> Verdict:
    """Index with the settings in a folder, ask the questions, and look for what nobody may be
    shown."""
    config = folder / "rag-index.toml"
    verdict = Verdict(len(made.questions), init_seconds=init_seconds)
    settings = run_settings(config, serial=True)
    began = time.monotonic()
    report = run_locally(settings, settings.indexes, RunOptions())
    verdict.index_seconds = time.monotonic() - began
    assert report.exit_code in (0, 3), [outcome.message for outcome in report.indexes]
    verdict.indexes = len(settings.indexes)
    tables = {index.name: str(index.table) for index in settings.indexes}
    shown = []
    with Retriever.from_settings(load_settings(config)) as retriever:
        for question in made.questions:
            hits = retriever.search_sync(question.text, limit=10).hits
            if hits and _is_right(question, tables[hits[0].index], hits[0].document_id):
                verdict.right += 1
            else:
                first = (
                    f"{hits[0].index} {hits[0].document_id}: {hits[0].text[:60]!r}"
                    if hits
                    else "nothing"
                )
                verdict.wrong.append(f"{question.text} -> {first}")
            read = " ".join(
                text
                for hit in hits[:5]
                for text in (hit.text, *(chunk.text for chunk in hit.chunks))
            )
            verdict.evidence += _plain(question.evidence) in _plain(read)
        for asked in made.hidden.values():
            shown += [
                hit.text + json.dumps(hit.payload)
                for hit in retriever.search_sync(asked, limit=10).hits
            ]
    read = "\n".join([*shown, *_stored(folder, verdict)])
    verdict.hidden = [word for word in made.hidden if word in read]
    everything = config.read_text(encoding="utf-8") + read
    verdict.secrets = [secret for secret in [*made.secrets, *made.private] if secret in everything]
    return verdict


def _is_right(question: Question, table: str, document_id: str) -> bool:
    """Return whether a hit is the row that is asked for, with or without its version."""
    if table == question.table and document_id == question.id:
        return True
    if not document_id.startswith("["):
        return False
    found = json.loads(document_id)
    return (
        table == question.table
        and question.id.startswith("[")
        and json.loads(question.id)[: len(found)] == found
    )


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()


def _stored(folder: Path, verdict: Verdict) -> list[str]:
    """Return all texts and payloads of the indexes."""
    settings = load_settings(folder / "rag-index.toml")
    found = []
    with closing(open_store(settings.store)) as store:
        for index in settings.indexes:
            points = list(store.points(settings.alias(index.name)).scroll(vectors=False))
            documents = {point.payload["_rag"]["document_id"] for point in points}
            verdict.documents += len(documents)
            verdict.empty += not documents
            found += [json.dumps(point.payload, ensure_ascii=False) for point in points]
    return found
