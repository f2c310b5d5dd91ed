"""Benchmark: the sample, the embedder's identity and the serial way as tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from rag_index.embedders import EmbedderIdentity, identify

if TYPE_CHECKING:
    from rag_index.orchestration.retries import Opaque
    from rag_index.tuning.benchmark import Bench

_ONCE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


@task(name="sample", **_ONCE)
def take_sample(bench: Opaque[Bench]) -> int:
    """Read the sample from the source."""
    return bench.value.take_sample()


@task(name="check embedder", **_ONCE)
def identify_embedder(bench: Opaque[Bench]) -> EmbedderIdentity:
    """Return what the embedder is, by a real embed."""
    return identify(bench.value.settings.embedder)


@task(name="embed serially", **_ONCE)
def embed_serially(bench: Opaque[Bench], identity: EmbedderIdentity) -> None:
    """Embed the sample as the usual script does. Not retried: the measured time would be wrong."""
    bench.value.run_serially(identity)
