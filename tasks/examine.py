"""Examine: one index compared with its source, ledger and store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from rag_index.doctor.checkup import examine
from rag_index.orchestration.task_policy import RETRIED

if TYPE_CHECKING:
    from rag_index.doctor.findings import Diagnosis
    from rag_index.settings import Settings


@task(name="examine", task_run_name="examine {index}", **RETRIED)
def examine_index(settings: Settings, index: str) -> Diagnosis:
    """Return everything that is wrong with an index. Nothing is changed, so a retry is harmless."""
    return examine(settings, [index])
