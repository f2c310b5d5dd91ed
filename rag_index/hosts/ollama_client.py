"""The client of one Ollama server and one model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from rag_index.errors import ModelMissing
from rag_index.hosts.endpoint import METADATA_SECONDS, Endpoint, ModelDetails, plain_model_name

if TYPE_CHECKING:
    from rag_index.settings import EmbedderSettings


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

    def __init__(self, url: str, settings: EmbedderSettings) -> None:
        super().__init__(url, settings)
        self._usual = {"model": self._model, "keep_alive": settings.keep_alive}
        self._known: tuple[str, ModelDetails] | None = None
        self._options: dict[str, float] = {"num_thread": settings.num_thread} if settings.num_thread else {}

    async def _embed(self, texts: list[str]) -> Any:
        asked = {"input": texts, "truncate": False, "options": self._options}
        return (await self._request(f"{self.url}/api/embed", {**self._usual, **asked}))["embeddings"]

    async def generate(self, prompt: str, **options: float) -> Answer:
        """Return the model's answer to a prompt, without its thinking. `options` are Ollama's (num_ctx, seed, …).

        Raises as `embed`; the prompt is the text.
        """
        asked = {"prompt": prompt, "stream": False, "think": False, "options": {**self._options, **options}}
        async with self._errors_mapped(self.timeout):
            answer = await self._request(f"{self.url}/api/generate", {**self._usual, **asked})
            text, tokens = answer["response"], answer.get("prompt_eval_count")
            if not isinstance(text, str) or not isinstance(tokens, int | None):
                raise TypeError(text, tokens)
        # neither holds if the model repeats itself endlessly
        ended = bool(answer.get("done")) and answer.get("done_reason") != "length"
        return Answer(text, ended, tokens)

    async def details(self) -> ModelDetails:
        """Return the details of the model. Its manifest is looked up each time, the rest only if that has changed.

        The digest is that of the weights, or a hash over several if the model has an adapter.
        Raises ModelMissing, and the errors of `embed` that mean the server is at fault.
        """
        async with self._errors_mapped(min(self.timeout, METADATA_SECONDS)):
            answer = await self._request(f"{self.url}/api/tags")
            manifests = {plain_model_name(one.get("model") or ""): str(one["digest"]) for one in answer["models"]}
            manifest = manifests.get(plain_model_name(self._model))
            if manifest is None:
                raise self._model_missing()
            if self._known is None or self._known[0] != manifest:
                shown = await self._request(f"{self.url}/api/show", {"model": self._model})
                found = re.findall(r"^(?:FROM|ADAPTER)\s.*sha256[-:]([0-9a-f]{64})", shown.get("modelfile") or "", re.M)
                weights = sha256("".join(found).encode()).hexdigest() if len(found) > 1 else "".join(found)
                details = shown.get("model_info") or {}
                lengths = [size for key, size in details.items() if key.endswith(".context_length")]
                # The manifest has the licence and, for a model made by `ollama create`, a path on that machine, and
                # differs between hosts with the same weights: it counts only if the server names no weights.
                self._known = manifest, ModelDetails(weights or manifest, int(lengths[0]) if lengths else None)
        return self._known[1]

    def _model_missing(self) -> ModelMissing:
        return ModelMissing(
            f"{self.url} has no model {self._model!r}: run `OLLAMA_HOST={self.url} ollama pull {self._model}`"
        )
