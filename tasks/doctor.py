"""The task of the flow `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from rag_index.etl.steps import CHECK
from tasks.policies import options_of

if TYPE_CHECKING:
    from rag_index.care.doctor.collection_state import Diagnosis
    from rag_index.core.settings import Settings


@task(name="examine", task_run_name="examine {index}", **options_of(CHECK))
def examine_index(settings: Settings, index: str) -> Diagnosis:
    """Return everything that is wrong with an index. Nothing is changed, so a retry is harmless."""
    from rag_index.care.doctor.checkup import examine  # workers need none of what it imports

    return examine(settings, [index])
