"""The model that all hosts must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.documents.vectors import broken_reason
from rag_index.errors import BadVectors, EmbedderError, ModelChanged, TextRefused, TextTooLong, WrongDimension

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag_index.hosts.endpoint import Endpoint

__all__ = ["KnownModel", "plain_vector"]

PLAIN_TEXT = "a plain text, to see whether the model answers"


@dataclass(slots=True)
class KnownModel:
    """Digest and dimension; learned from the first host where nobody said."""

    name: str
    digest: str | None = None
    dimension: int | None = None

    async def compare(self, endpoint: Endpoint) -> None:
        """Raises ModelChanged where a host has another model, and what `Endpoint.details` raises."""
        digest = (await endpoint.details()).digest
        if self.digest is None:
            self.digest = digest
        elif digest != self.digest:
            raise ModelChanged(
                f"{endpoint.url} has another {self.name} (weights {digest[:12]}) than the run began with "
                f"({self.digest[:12]}): "
                f"start a new run to index with the new one, or give all hosts the same with `ollama pull {self.name}`"
            )

    async def try_out(self, endpoint: Endpoint) -> None:
        """Compare, and embed a plain text.

        Raises BadVectors, its kind WrongDimension, EmbedderError where even a plain text is refused, and what
        `compare` and `Endpoint.embed` raise where the server is the reason.
        """
        await self.compare(endpoint)
        vector = await plain_vector(endpoint, self.name)
        if self.dimension is None:
            self.dimension = vector.size
        why = broken_reason(vector, self.dimension)
        if why is not None:
            raise WrongDimension(f"{endpoint.url} answers {why}, with the same digest of {self.name}: restart it")


async def plain_vector(endpoint: Endpoint, name: str) -> NDArray[np.float32]:
    """The vector of a plain text, finite and not zero. Raises BadVectors, EmbedderError, as `Endpoint.embed`."""
    try:
        vector = (await endpoint.embed([PLAIN_TEXT]))[0]
    except (TextRefused, TextTooLong) as exc:
        raise EmbedderError(f"{exc} (even for {PLAIN_TEXT!r}: model {name} there cannot be used)") from exc
    why = broken_reason(vector, None)
    if why is not None:
        raise BadVectors(f"{endpoint.url} answers {why} for a plain text")
    return vector
