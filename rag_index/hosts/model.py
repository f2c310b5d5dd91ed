"""The model that all hosts must agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.documents.vectors import broken_reason
from rag_index.errors import BadVectors, EmbedderError, ModelChanged, TextRefused, TextTooLong, WrongDimension

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag_index.hosts.ollama_client import Endpoint

PLAIN_TEXT = "a plain text, to see whether the model answers"


@dataclass(slots=True)
class KnownModel:
    """The digest and the dimension that every host must have. If they are None, the first host sets them."""

    name: str
    digest: str | None = None
    dimension: int | None = None
    patience: float = 60.0
    """Seconds that a host may take for `try_out`, the loading of the model included."""

    async def compare(self, endpoint: Endpoint) -> None:
        """Compare the host's digest with the expected one.

        Raises ModelChanged if they differ, and the errors of `Endpoint.details`.
        """
        digest = (await endpoint.details()).digest
        if self.digest is None:
            self.digest = digest
        elif digest != self.digest:
            raise ModelChanged(
                f"{endpoint.url} has {self.name} with weights {digest[:12]}, but the run began with weights "
                f"{self.digest[:12]}: start a new run to index with the new model, or run `ollama pull {self.name}` "
                "on each host to give all hosts the same one"
            )

    async def try_out(self, endpoint: Endpoint) -> None:
        """Compare the model, and embed a plain text with it.

        Raises BadVectors, WrongDimension if only the dimension is wrong, EmbedderError if the host refuses even a plain
        text, and the errors of `compare` and `Endpoint.embed` that mean the server is at fault.
        """
        await self.compare(endpoint)
        vector = await plain_vector(endpoint, self.name)
        if self.dimension is None:
            self.dimension = vector.size
        why = broken_reason(vector, self.dimension)
        if why is not None:
            raise WrongDimension(
                f"{endpoint.url} returned a vector of {why}, though its {self.name} has the expected digest: "
                "restart that server"
            )


async def plain_vector(endpoint: Endpoint, name: str) -> NDArray[np.float32]:
    """Return a host's vector of a plain text, after checking that it is finite and not zero.

    Raises BadVectors, EmbedderError if the host refuses even a plain text, and the errors of `Endpoint.embed`.
    """
    try:
        vector = (await endpoint.embed([PLAIN_TEXT]))[0]
    except (TextRefused, TextTooLong) as exc:
        raise EmbedderError(f"{exc} (the host refuses even {PLAIN_TEXT!r}: {name} cannot embed there)") from exc
    why = broken_reason(vector, None)
    if why is not None:
        raise BadVectors(f"{endpoint.url} returned a vector of {why} for a plain text")
    return vector
