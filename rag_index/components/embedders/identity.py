"""What determines the vectors of a model, and what the names of models tell."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.parts import known_prompts

if TYPE_CHECKING:
    from rag_index.core.settings import EmbedderSettings

ENGLISH_ALONE = re.compile(
    r"wordllama|all-minilm|all-mpnet|nomic-embed-text(?!-v2)|mxbai-embed-large|bge-(?:small|base|large)(?:-en|:|$)"
    r"|uae-large|snowflake-arctic-embed(?!2|.*-v2)|gte-(?:small|base|large)(?:-en|:|$)|e5-(?:small|base|large)|multi-qa"
)
"""Models that have learned from English texts alone, by their names."""


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """Everything that determines the vectors: runs with equal identities produce interchangeable vectors."""

    kind: str
    model: str
    digest: str
    dimension: int
    document_prefix: str = ""
    query_prefix: str = ""

    @classmethod
    def of(cls, settings: EmbedderSettings, model: str, digest: str, dimension: int) -> EmbedderIdentity:
        """Return the identity of a model with the prefixes of the settings."""
        prefixes = settings.document_prefix or "", settings.query_prefix or ""
        return cls(settings.kind, model, digest, dimension, *prefixes)

    @property
    def fingerprint(self) -> str:
        """A short hash of all fields (16 hex digits)."""
        canonical = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.blake2b(canonical, digest_size=8).hexdigest()

    @classmethod
    def from_metadata(cls, recorded: Any) -> EmbedderIdentity | None:
        """Return the identity that a collection records; None if it records none, or a newer rag-index made it."""
        try:
            return cls(**recorded)
        except TypeError:
            return None

    def same_model(self, other: EmbedderIdentity) -> bool:
        """Return whether both make the same vectors. A digest that is made of a vector is compared with tolerance."""
        from rag_index.core.documents.vectors import same_digest

        return replace(self, digest="") == replace(other, digest="") and same_digest(self.digest, other.digest)

    def __str__(self) -> str:
        named = {"document prefix": self.document_prefix, "query prefix": self.query_prefix}
        prefixes = [f"{name} {prefix!r}" for name, prefix in named.items() if prefix]
        made = ", ".join([self.kind, self.digest[:12], *(prefixes or ["no prefixes"])])
        return f"{self.dimension}-d {self.model} ({made})"


def knows_english_alone(model: str) -> bool:
    """Return whether a model of this name is known to have learned from English texts alone."""
    return ENGLISH_ALONE.match(model.lower()) is not None


def prefix_warning(settings: EmbedderSettings, identity: EmbedderIdentity) -> str:
    """Return a warning if neither the model nor its name nor the settings tell whether it needs prefixes; else ""."""
    told = settings.model_fields_set & {"document_prefix", "query_prefix"} or known_prompts(settings.model)
    if told or settings.kind == "local" or identity.document_prefix or identity.query_prefix:
        return ""
    return (
        f"it is not known what model {identity.model} was trained to read before documents and queries, so texts are "
        'embedded as they are: set document_prefix and query_prefix as its card says (both to "" for nothing)'
    )
