"""Copies of an indexed project, so that a test can damage one without indexing first."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

from tests.project import Project


def twin(project: Project, folder: Path) -> Project:
    """Return a copy with source, settings, store and ledger."""
    ignored = shutil.ignore_patterns(".prefect")
    shutil.copytree(project.folder, folder, ignore=ignored, copy_function=copy_sparse)
    duplicate = copy.copy(project)
    duplicate.folder, duplicate.config = folder, folder / project.config.name
    return duplicate


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
