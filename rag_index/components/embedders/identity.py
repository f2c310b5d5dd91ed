"""What determines the vectors of a model, and what the names of models show."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.parts import known_prompts
from rag_index.errors import ProcessorDiffers

if TYPE_CHECKING:
    from rag_index.core.settings import EmbedderSettings

ENGLISH_ALONE = re.compile(
    r"wordllama|all-minilm|all-mpnet|nomic-embed-text(?!-v2)|mxbai-embed-large|bge-(?:small|base|large)(?:-en|:|$)"
    r"|uae-large|snowflake-arctic-embed(?!2|.*-v2)|gte-(?:small|base|large)(?:-en|:|$)|e5-(?:small|base|large)|multi-qa"
)
"""Models that have learned from English texts alone, by their names."""


IN_PROCESS = "fastembed"
"""The kind of embedder whose models are files of this machine."""


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """Everything that determines the vectors: runs with equal identities produce interchangeable
    vectors."""

    kind: str
    model: str
    digest: str
    dimension: int
    document_prefix: str = ""
    query_prefix: str = ""
    place: str = field(default="", compare=False)
    """Where a model in the process was found: a folder, or a name of the model hub."""
    revision: str = field(default="", compare=False)
    """The commit of the hub that its files are of."""
    processor: str = field(default="", compare=False)
    """The processor that has made the vectors."""
    probe: str = field(default="", compare=False)
    """What it makes of a fixed sentence, as `probe_digest`."""
    pooling: str = field(default="", compare=False)
    """How the model's vectors of tokens become one, and what says so; its digest covers it."""

    @classmethod
    def of(
        cls, settings: EmbedderSettings, model: str, digest: str, dimension: int
    ) -> EmbedderIdentity:
        """Return the identity of a model with the prefixes of the settings."""
        document_prefix = settings.document_prefix or ""
        query_prefix = settings.query_prefix or ""
        return cls(settings.kind, model, digest, dimension, document_prefix, query_prefix)

    @property
    def fingerprint(self) -> str:
        """A short hash of all fields that decide the vectors (16 hex digits).

        For a model in the process, its files decide, whatever the name of their folder.
        """
        own = {known.name: getattr(self, known.name) for known in fields(self) if known.compare}
        if self.kind == IN_PROCESS:
            own["model"] = ""
        canonical = json.dumps(own, sort_keys=True).encode()
        return hashlib.blake2b(canonical, digest_size=8).hexdigest()

    @classmethod
    def from_metadata(cls, recorded: Any) -> EmbedderIdentity | None:
        """Return the identity that a collection records; None if it records none, or a newer
        rag-index made it."""
        try:
            return cls(**recorded)
        except TypeError:
            return None

    def same_model(self, other: EmbedderIdentity) -> bool:
        """Return whether both make the same vectors. A digest that is made of a vector is compared with
        tolerance."""
        from rag_index.core.documents.vectors import same_digest

        ours, theirs = replace(self, digest=""), replace(other, digest="")
        # For a model in the process the files decide, whatever the name of their folder.
        if self.kind == IN_PROCESS:
            theirs = replace(theirs, model=self.model)
        if ours != theirs or not same_digest(self.digest, other.digest):
            return False
        return self.same_processor(other)

    def same_processor(self, other: EmbedderIdentity) -> bool:
        """Return whether the processors of both compute the same vectors with the same files. If one is
        unknown, they are taken for equal."""
        from rag_index.core.documents.vectors import same_digest

        if not self.probe or not other.probe:
            return True
        return same_digest(self.probe, other.probe)

    def require_processor(self, found: EmbedderIdentity) -> None:
        """Raise ProcessorDiffers if this is recorded with a collection, and `found` has another kind of
        processor."""
        if self.same_processor(found):
            return
        raise ProcessorDiffers(
            f"{found.model} gives other vectors on this processor ({found.processor}) than on the one"
            f" that made the collection ({self.processor}): use processors of one kind, or rebuild the"
            " index with the 32-bit file of the model"
        )

    def revision_for(self, settings: EmbedderSettings) -> str:
        """Return the commit of the hub that its files are of, if the settings name the same model; else
        ""."""
        if self.kind != settings.kind:
            return ""
        is_same = last_part(self.place) == last_part(settings.model)
        return self.revision if is_same else ""

    def __str__(self) -> str:
        details = [self.kind, self.digest[:12]]
        if self.document_prefix:
            details.append(f"document prefix {self.document_prefix!r}")
        if self.query_prefix:
            details.append(f"query prefix {self.query_prefix!r}")
        if not self.document_prefix and not self.query_prefix:
            details.append("no prefixes")
        return f"{self.dimension}-d {self.model} ({', '.join(details)})"


def last_part(name: str) -> str:
    """Return the name of a model without its owner, or of a folder without those above, in small
    letters."""
    path = name.lower().rstrip("/")
    return path.rsplit("/", 1)[-1]


def knows_english_alone(model: str) -> bool:
    """Return whether a model of this name is known to have learned from English texts alone."""
    return ENGLISH_ALONE.match(last_part(model)) is not None


def prefix_warning(settings: EmbedderSettings, identity: EmbedderIdentity) -> str:
    """Return a warning if neither the model nor its name nor the settings show whether it needs
    prefixes; else ""."""
    is_set = bool(settings.model_fields_set & {"document_prefix", "query_prefix"})
    if is_set or known_prompts(settings.model) or settings.kind == "local":
        return ""
    if identity.document_prefix or identity.query_prefix:
        return ""
    return (
        f"it is not known what model {identity.model} was trained to read before documents and"
        " queries, so texts are embedded as they are: set document_prefix and query_prefix as its"
        ' card says (both to "" for nothing)'
    )
