"""The client of one Ollama server and one model."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import ollama
from pydantic import ValidationError

from rag_index.components.hosts.endpoint import METADATA_SECONDS, Endpoint, ModelDetails, plain_model_name
from rag_index.errors import EmbedderUnavailable, ModelMissing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.core.settings import EmbedderSettings


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a generating model."""

    text: str
    ended: bool
    """Whether the model finished the answer, instead of reaching the maximum number of tokens."""
    prompt_tokens: int | None
    """Number of tokens of the prompt that the model read; None if the server does not say."""


class OllamaEndpoint(Endpoint):
    """One Ollama server."""

    service = "Ollama"

    def __init__(self, url: str, settings: EmbedderSettings, dimensions: int | None = None) -> None:
        super().__init__(url, settings, dimensions)
        self._keep_alive = settings.keep_alive
        self._known: tuple[str, ModelDetails] | None = None
        self._options = {"num_thread": settings.num_thread} if settings.num_thread else None
        self._client = ollama.AsyncClient(host=url, **self._client_options)
        self._http = httpx.AsyncClient(**self._client_options)

    async def _embed(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Send the request that the library's client would, whose reading of the answer costs twice as much."""
        body: dict[str, Any] = {"model": self._model, "input": texts, "truncate": False}
        body |= {"options": self._options} if self._options else {}
        body |= {"keep_alive": self._keep_alive}
        return self._vectors((await self._post(f"{self.url}/api/embed", body))["embeddings"])

    async def generate(self, prompt: str, **options: float) -> Answer:
        """Return the model's answer to a prompt, without its thinking. `options` are Ollama's (num_ctx, seed, …).
        Raises as `embed`; the prompt is the text."""
        async with self._errors_mapped(self.timeout):
            answer = await self._client.generate(
                self._model,
                prompt,
                stream=False,
                think=False,
                options={**(self._options or {}), **options},
                keep_alive=self._keep_alive,
            )
        ended = bool(answer.done) and answer.done_reason != "length"  # neither holds if it repeats itself endlessly
        return Answer(answer.response or "", ended, answer.prompt_eval_count)

    async def details(self) -> ModelDetails:
        """Return the details of the model. Its manifest is looked up each time, the rest only if that has changed. The
        digest is that of the weights, or a hash over several if the model has an adapter. Raises ModelMissing, and the
        errors of `embed` that mean the server is at fault."""
        async with self._errors_mapped(min(self.timeout, METADATA_SECONDS)):
            answer = await self._client.list()
            manifest = {plain_model_name(model.model or ""): model.digest for model in answer.models}.get(
                plain_model_name(self._model)
            )
            if manifest is None:
                raise self._model_missing()
            if self._known is None or self._known[0] != manifest:
                response = await self._client.show(self._model)
                found = re.findall(r"^(?:FROM|ADAPTER)\s.*sha256[-:]([0-9a-f]{64})", response.modelfile or "", re.M)
                weights = sha256("".join(found).encode()).hexdigest() if len(found) > 1 else "".join(found)
                lengths = [size for key, size in (response.modelinfo or {}).items() if key.endswith(".context_length")]
                # The manifest has the licence and, for a model made by `ollama create`, a path on that machine, and
                # differs between hosts with the same weights: it counts only if the server names no weights.
                self._known = manifest, ModelDetails(weights or manifest, int(lengths[0]) if lengths else None)
        return self._known[1]

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]
        await self._http.aclose()

    @asynccontextmanager
    async def _errors_mapped(self, seconds: float) -> AsyncIterator[None]:
        async with super()._errors_mapped(seconds):
            try:
                yield
            except ollama.ResponseError as exc:
                raise self._refusal(exc.status_code, str(exc.error), {}) from exc
            except ValidationError as exc:
                raise EmbedderUnavailable(
                    f"{self.url} returned JSON that Ollama would not return: is it Ollama?"
                ) from exc

    def _model_missing(self) -> ModelMissing:
        return ModelMissing(
            f"{self.url} has no model {self._model!r}: run `OLLAMA_HOST={self.url} ollama pull {self._model}`"
        )
