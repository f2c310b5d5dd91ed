"""The task of the flow `doctor`: apart from those of a run, whose workers need none of what it imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from rag_index.care.doctor.checkup import examine
from rag_index.etl import retry_policies
from tasks.index import options_of

if TYPE_CHECKING:
    from rag_index.care.doctor.findings import Diagnosis
    from rag_index.core.settings import Settings


@task(name="examine", task_run_name="examine {index}", **options_of(retry_policies.CHECK))
def examine_index(settings: Settings, index: str) -> Diagnosis:
    """Return everything that is wrong with an index. Nothing is changed, so a retry is harmless."""
    return examine(settings, [index])
