"""Health checks: a service that the run needs answers, and is waited for if it is down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from rag_index.indexing.service_checks import RETRY_SECONDS, patience
from rag_index.orchestration.retries import Opaque, transient_for

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@task(
    name="check", task_run_name="check {service}", retry_delay_seconds=RETRY_SECONDS, retry_jitter_factor=0.3,
    cache_policy=NO_CACHE, persist_result=False,
)  # fmt: skip
def check_service(service: str, ask: Opaque[Callable[[], Any]]) -> Any:
    """Return the answer of a service.

    Each question has a time limit of its own: that of the database's driver, of the survey of hosts, of the store's
    requests, or of the connection to the cluster. Jitter, so that runs on many machines ask apart.
    """
    return ask.value()


def check(service: str, ask: Callable[[], T], min_retries: int, *, wait: float) -> T:
    """Return the answer of a service, which is waited for `wait` seconds."""
    retries, seconds = patience(wait, min_retries=min_retries)
    policy: dict[str, Any] = {"retries": retries, "retry_condition_fn": transient_for(seconds)}
    answer: Any = check_service.with_options(**policy)(service, Opaque(ask))
    return answer  # type: ignore[no-any-return]
