"""The survey of hosts before a run: ask every host for its model, let the model work once, and compare the answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from rag_index.documents.vectors import same_digest
from rag_index.errors import EmbedderUnavailable, ModelChanged, RagIndexError, RequestTimedOut
from rag_index.hosts.endpoint import Endpoint, ModelDetails, equal_model_remedy, noticing_work
from rag_index.hosts.host_pool import MIN_SILENCE
from rag_index.outages import asking


@dataclass(frozen=True, slots=True)
class HostReport:
    """The answer of one host to the question which model it has. `error` is set if the host cannot be used."""

    url: str
    digest: str = ""
    dimension: int | None = None
    """Dimension of the model's vectors, if the survey embedded a text."""
    context_length: int | None = None
    error: RagIndexError | None = None

    def __str__(self) -> str:
        dimension = f" ({self.dimension}-d)" if self.dimension is not None else ""
        return f"{self.url} weights {self.digest[:12]}{dimension}"


async def survey_hosts(
    endpoints: Sequence[Endpoint],
    use_model: Callable[[Endpoint, ModelDetails], Awaitable[int | None]],
    *,
    seconds: float,
    setting: str,
) -> list[HostReport]:
    """Ask all hosts at the same time for their model, and return one report per host, in order.

    `use_model` lets a host's model work once, and returns the dimension of its vectors if it embeds. A host has
    `seconds` for everything together, the loading of its model included. A message names the `setting` to raise for
    more. No RagIndexError is raised: errors are in the reports, and whoever can wait asks again.
    """

    async def survey(endpoint: Endpoint) -> HostReport:
        error: RagIndexError
        with asking(f"{endpoint.service} at {endpoint.url}", patience=MIN_SILENCE) as call:
            try:
                async with asyncio.timeout(seconds), noticing_work(call, lambda: [endpoint]):
                    details = await endpoint.details()
                    dimension = await use_model(endpoint, details)
                    return HostReport(endpoint.url, details.digest, dimension, details.context_length)
            except (TimeoutError, RequestTimedOut) as exc:
                silent = str(exc) or f"{endpoint.url} did not answer within {seconds:g} s"
                error = RequestTimedOut(
                    f"{silent}: restart {endpoint.service} there if it hangs, "
                    f"or raise {setting} if its model takes longer to load"
                )
            except RagIndexError as exc:
                error = exc
        return HostReport(endpoint.url, error=error)

    return list(await asyncio.gather(*map(survey, endpoints)))


def agreed_report(reports: Sequence[HostReport], model: str, log: logging.Logger) -> HostReport:
    """Return the report of the first host that answers, if all hosts that answer have the same model.

    If there are several hosts, those that do not answer are only warned about, in `log`.

    Raises:
        EmbedderUnavailable: No host answers.
        ModelMissing, BadVectors, EmbedderError: A host answers, but cannot be used.
        ModelChanged: The hosts have different models of this name.
    """
    answered = [report for report in reports if not isinstance(report.error, EmbedderUnavailable)]
    for report in answered or reports:
        if report.error is not None:
            raise report.error
    for report in reports:
        if report.error is not None:
            log.warning("%s: continuing without one of %d hosts: %s", model, len(reports), report.error)
    first = answered[0]
    if any(one.dimension != first.dimension or not same_digest(one.digest, first.digest) for one in answered):
        raise ModelChanged(
            f"hosts have different models named {model}: {', '.join(map(str, answered))}; "
            f"{equal_model_remedy(first.digest, model)}"
        )
    return first
