"""The task of the flow `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from rag_index.core.recovery import DELAYS, RETRIES, waiting
from tasks.policies import UNCACHED, may_be_tried

if TYPE_CHECKING:
    from rag_index.care.doctor.collection_state import Diagnosis
    from rag_index.core.settings import Settings


@task(
    name="examine", task_run_name="examine {index}",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
def examine_index(settings: Settings, index: str) -> Diagnosis:
    """Return everything that is wrong with an index. Nothing is changed, so a retry is harmless."""
    from rag_index.care.doctor.checkup import examine  # workers need none of what it imports

    with waiting(settings.run.wait_for_recovery):
        return examine(settings, [index])
