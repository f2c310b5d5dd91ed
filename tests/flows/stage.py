"""A project with a fake Ollama in which a scene provokes a failure, and runs of it without Prefect and Dask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.care.index_status import failed
from rag_index.core.reports.outcome import IndexOutcome, RunReport, failed_to_start
from rag_index.errors import RagIndexError
from tests.etl.plain import run_plain
from tests.project import Project

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from tests.fakes.ollama import FakeOllama
    from tests.fakes.qdrant import FakeQdrant

DOCUMENTS = 40


@dataclass
class Stage:
    """What a scene needs. The project has forty notes, none of which is indexed yet."""

    folder: Path
    fake: FakeOllama
    patch: pytest.MonkeyPatch

    def __post_init__(self) -> None:
        self.project = self.make("project")

    def make(self, name: str, more: str = "") -> Project:
        """Return another project with forty notes; `more` is TOML that goes before the indexes."""
        waits = "batch_texts = 8\n[parallel]\nshard_documents = 10\n[run]\nwait_for_recovery = 0.2\n"
        return Project(self.folder / name, extra=self.fake.settings + waits + more).fill(DOCUMENTS)

    def set(self, old: str, new: str) -> None:
        """Change the settings."""
        text = self.project.config.read_text()
        assert old in text
        self.project.write_settings(text.replace(old, new))

    def run(self, **options: bool) -> IndexOutcome:
        """Run the index; an error becomes the outcome that the flow makes of it."""
        try:
            return run_plain(self.project, **options)
        except RagIndexError as error:
            return failed_to_start("notes", error)

    def held(self) -> dict[str, list[str]]:
        """Run the index, which must complete, and return what it holds."""
        outcome = self.run()
        assert outcome.state == "completed", outcome.message
        return self.project.texts()

    def listed(self) -> dict[str, int]:
        """Return how often each listed document was tried."""
        settings = self.project.settings
        return {one.document_id: one.tries for one in failed(settings, settings.indexes)}


def exit_code(outcome: IndexOutcome) -> int:
    """Return the exit code of a run of this index alone."""
    return RunReport([outcome]).exit_code


SCENES: dict[str, Callable[[Stage, FakeQdrant], int]] = {}
"""The scenes by the beginning of their line."""


def line(beginning: str) -> Callable[..., Callable[[Stage, FakeQdrant], int]]:
    def add(scene: Callable[[Stage, FakeQdrant], int]) -> Callable[[Stage, FakeQdrant], int]:
        SCENES[beginning] = scene
        return scene

    return add


def fails(outcome: IndexOutcome, *words: str) -> int:
    """Check that the index ended as failed and says this, and return the exit code."""
    assert outcome.state == "failed"
    assert all(word in outcome.message for word in words), outcome.message
    return exit_code(outcome)


def does_the_rest(stage: Stage, *, sure: int = 1) -> None:
    """Check that the next run completes without what was committed, of which there are `sure` documents."""
    outcome = stage.run()
    assert outcome.state == "completed", outcome.message
    assert outcome.unchanged >= sure
    assert len(stage.project.texts()) == outcome.documents


def embeds(stage: Stage, words: str) -> bool:
    return any(words in text for request in stage.fake.embeds() for text in request.texts)
