"""Copies of an indexed project, so that a test can damage one without indexing first, and backups
of its data."""

import copy
import os
import shutil
from pathlib import Path

from tests.project import Project

STORE, POINTS, LEDGER = "qdrant", "qdrant/collections", "ledger.db"
"""What a backup has: the embedded store, only the folders of its collections, or the ledger."""


def twin(project: Project, folder: Path) -> Project:
    """Return a copy with source, settings, store and ledger."""
    shutil.copytree(
        project.folder, folder, ignore=shutil.ignore_patterns(".prefect"), copy_function=copy_sparse
    )
    duplicate = copy.copy(project)
    duplicate.folder, duplicate.config = folder, folder / project.config.name
    return duplicate


def back_up(project: Project, folder: Path, *parts: str) -> Path:
    """Copy these parts of a project's data, while no process has them open, and return the folder
    of the copies."""
    for part in parts:
        source, target = project.folder / ".rag-index" / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=copy_sparse)
        else:
            for file in source.parent.glob(
                f"{source.name}*"
            ):  # SQLite's log too, which a run that died leaves
                shutil.copy(file, target.parent)
    return folder


def restore(project: Project, folder: Path, *parts: str) -> None:
    """Put copies of these parts in the place of what is there."""
    for part in parts:
        source, target = folder / part, project.folder / ".rag-index" / part
        if source.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target, copy_function=copy_sparse)
        else:
            for file in target.parent.glob(f"{target.name}*"):
                file.unlink()
            for file in source.parent.glob(f"{source.name}*"):
                shutil.copy(file, target.parent)


def lose_ledger(project: Project) -> None:
    for file in (project.folder / ".rag-index").glob("ledger.db*"):
        file.unlink()


def copy_sparse(source: str, target: str) -> None:
    """Copy a file without its holes: the engine's files are 150 MB long and nearly empty."""
    with Path(source).open("rb") as old, Path(target).open("wb") as new:
        size, position = os.fstat(old.fileno()).st_size, 0
        while position < size:
            try:
                start = os.lseek(old.fileno(), position, os.SEEK_DATA)
            except OSError:
                break  # only a hole is left
            position = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            old.seek(start)
            new.seek(start)
            new.write(old.read(position - start))
        new.truncate(size)
