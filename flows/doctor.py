"""Doctor: compare source, ledger and store, and say what to do. Nothing is changed."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from rag_index.care.doctor import Diagnosis, examine
from rag_index.core.recovery import retry_step
from rag_index.core.settings import run_settings
from rag_index.orchestration.reporting import OWN_END, diagnosis_state, run_name
from rag_index.orchestration.stopping import failing, stoppable
from tasks.policies import only_our_errors


@flow(name="doctor", flow_run_name=run_name, **OWN_END)
def doctor(
    config: str | None = None,
    indexes: list[str] | None = None,
    wait: Annotated[float, Field(ge=0)] | None = None,
) -> State[Diagnosis]:
    """Compare source, ledger and store of each index, and say what to do. Nothing is changed.

        prefect deployment run doctor/doctor

    Args:
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's
            folder or above it.
        indexes: Names of indexes; by default all.
        wait: How long to wait for services that are down at the start, in seconds.
    """
    with stoppable() as stop, failing(stop), only_our_errors("the check-up"):
        settings = run_settings(config, wait=wait)
        recovery = settings.run.wait_for_recovery
        diagnosis = retry_step(lambda: examine(settings, indexes), recovery)
    return stop.state or diagnosis_state(settings.project, diagnosis)
