"""Embedding models that can be used at once: of an Ollama server, or of the hub's cache, where
fastembed runs them.

`propose_model` tries each with some texts, and returns the fastest one that knows their languages.
Nothing is downloaded, and where no server answers, it takes at most `LOOK_SECONDS`.
"""

from __future__ import annotations

import re
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from rag_index.components.embedders import open_embedder
from rag_index.components.embedders.identity import knows_english_alone, last_part
from rag_index.components.embedders.model_files import EXTRA, TOKENIZER
from rag_index.core.connections import tls_context
from rag_index.core.documents.text_languages import LANGUAGE_NAMES
from rag_index.core.machine import in_thread
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import TextTooLong, install_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rag_index.components.embedders import Embedder

LOOK_SECONDS = 2.0
"""The seconds that an Ollama server may take to list its models (chosen)."""
SPARE_SECONDS = 0.2
"""The seconds more for which its answer is awaited: it may have described some models by then."""
TRY_SECONDS = 20.0
"""The seconds that the trials of all models may take together (chosen). A server may have to load a
model within that time."""
SAMPLES = 20
"""The number of texts with which each model is tried (chosen)."""
SAMPLE_CHARS = 1000
"""The most characters of such a text: about a chunk."""
ALL_LANGUAGES = frozenset({"*"})
MULTILINGUAL = re.compile(
    r"multilingual|bge-m3|arctic-embed2|arctic-embed-[a-z]-v2|v2-moe|embedding-?gemma|qwen3-embedding|gte-qwen"
    r"|jina-embeddings-v[345]|granite-embedding:(?:107|278)m|labse|distiluse|e5-mistral|text-embedding-3"
)
"""Names of models that know many languages."""
BILINGUAL = {
    "zh": "chinese",
    "de": "german",
    "es": "spanish",
    "fr": "french",
    "ja": "japanese",
    "ru": "russian",
}
"""The language that a model knows beside English, by a part of its name."""
NO_TEXT_EMBEDDER = ("text&image", "query-side", "document side")
"""Words of the library's list for models that are for pictures, too, or only for queries or only
for documents."""
OFFERS = {
    True: ("BAAI/bge-small-en-v1.5", "67 MB"),
    False: ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "220 MB"),
}
"""The model to download, and its size: for English alone (True), and for all else."""
RATE = "Measured by init: {:,} characters/s with {}"
_RATE = re.compile(r"^# Measured by init: ([\d,]+) characters/s with (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ModelCandidate:
    """A model that can be used without a download.

    Attributes:
        kind: The kind of embedder that runs it.
        model: Its name in the settings.
        host: The server that has it; "" for one in the process.
        size: The bytes of its weights, about.
        languages: The languages that it knows; None if its name does not show that.
    """

    kind: str
    model: str
    host: str
    size: int
    languages: frozenset[str] | None

    def knows(self, languages: Sequence[str]) -> bool:
        """Return whether the model knows all of these languages. A model whose languages are
        unknown is expected to know English."""
        if self.languages is None:
            return set(languages) == {"english"}
        return self.languages == ALL_LANGUAGES or self.languages.issuperset(languages)

    @property
    def where(self) -> str:
        """Where the model runs, for people."""
        if not self.host:
            return "in the process"
        return f"on Ollama at {self.host}"


@dataclass(frozen=True, slots=True)
class ProposedEmbedder:
    """The embedder that `init` proposes, and why.

    Attributes:
        why: The reason, one or two sentences.
        candidate: The model; None for wordllama.
        chars_per_second: The measured rate: of a server in total, in the process on one core.
    """

    why: str
    candidate: ModelCandidate | None = None
    chars_per_second: int = 0

    @property
    def rate(self) -> str:
        """How fast the model was, for people."""
        return f"It embedded {self.chars_per_second:,} characters/s."

    def to_json(self) -> dict[str, Any]:
        """Return the object that `init --json` prints."""
        found = self.candidate
        if found is None:
            return {"kind": "local", "model": "wordllama", "why": self.why}
        hosts = {"hosts": [found.host]} if found.host else {}
        return {
            "kind": found.kind,
            "model": found.model,
            **hosts,
            "chars_per_second": self.chars_per_second,
            "why": self.why,
        }


def rate_comment(chars_per_second: int, model: str) -> str:
    """Return the comment by which a settings file records how fast a model was."""
    return f"# {RATE.format(chars_per_second, model)}"


def measured_by_init(settings_file: Path, model: str) -> float | None:
    """Return the characters per second that `init` measured with this model; None if the file does
    not record that."""
    with suppress(OSError, UnicodeDecodeError):
        for rate, measured in _RATE.findall(settings_file.read_text(encoding="utf-8")):
            if measured == model:
                return float(rate.replace(",", ""))
    return None


def propose_model(
    hosts: Sequence[str],
    texts: Sequence[str],
    languages: Sequence[str],
    say: Callable[[str], object] = lambda _: None,
) -> ProposedEmbedder:
    """Return the fastest model that knows all of these languages, or wordllama with the reason for
    it.

    Args:
        hosts: The Ollama servers to look at.
        texts: The texts with which the models are tried.
        say: A function that shows what takes a while.
    """
    candidates = find_candidates(hosts)
    knowing = [candidate for candidate in candidates if candidate.knows(languages)]
    if not knowing or not texts:
        return ProposedEmbedder(_nothing_better(languages, candidates))
    names = ", ".join(candidate.model for candidate in knowing)
    say(f"Trying {names} with {len(texts)} texts …")
    rates = measure_rates(knowing, texts)
    if not rates:
        too_slow = f"{knowing[0].model} did not embed {len(texts)} texts in {TRY_SECONDS:.0f} s."
        return ProposedEmbedder(f"{too_slow} {_nothing_better(languages, ())}")
    best = max(rates, key=rates.__getitem__)
    rank = "the only model" if len(knowing) == 1 else f"the fastest of {len(knowing)} models"
    why = (
        f"{best.model} runs {best.where}: {rank} found here for {_named(languages)}. It finds what"
        " says the same in other words better than wordllama does, and takes longer."
    )
    return ProposedEmbedder(why, best, rates[best])


def find_candidates(hosts: Sequence[str]) -> list[ModelCandidate]:
    """Return the embedding models of the first of these servers that answers, and those of the
    hub's cache."""
    deadline = time.monotonic() + LOOK_SECONDS
    answers = [in_thread(partial(_models_of_server, host, deadline), "look") for host in hosts]
    cached = cached_models()
    for answer in answers:
        with suppress(Exception):  # it is off, too slow, or no Ollama, which may answer anything
            seconds = deadline + SPARE_SECONDS - time.monotonic()
            models = answer.result(max(SPARE_SECONDS, seconds))
            if models:
                return [*models, *cached]
    return cached


def _models_of_server(host: str, deadline: float) -> list[ModelCandidate]:
    """Return the models of an Ollama server that can embed, as far as it describes them in time.
    Raises what httpx raises."""
    found = list[ModelCandidate]()
    with httpx.Client(base_url=host, timeout=LOOK_SECONDS, verify=tls_context()) as client:
        listed = client.get("/api/tags").raise_for_status().json()
        for entry in _objects(listed, "models"):
            if time.monotonic() >= deadline:
                return found
            name = str(entry.get("model") or entry.get("name") or "")
            shown = client.post("/api/show", json={"model": name}).raise_for_status().json()
            # a model that runs on another server of Ollama's has a `remote_host`
            if not _can_embed(shown) or entry.get("remote_host"):
                continue
            model = name.removesuffix(":latest")
            size = int(entry.get("size") or 0)
            found.append(ModelCandidate("ollama", model, host, size, languages_of(model)))
    return found


def _can_embed(description: Any) -> bool:
    """Return whether a server describes a model as one that embeds."""
    if not isinstance(description, dict):
        return False
    return "embedding" in (description.get("capabilities") or ())


def _objects(answer: Any, key: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a list in an answer, which may be of any server."""
    if not isinstance(answer, dict):
        return
    for entry in answer.get(key) or ():
        if isinstance(entry, dict):
            yield entry


def cached_models() -> list[ModelCandidate]:
    """Return the models of fastembed's list whose files are all in the hub's cache. No request is
    sent to the hub."""
    if find_spec("fastembed") is None:
        return []
    from huggingface_hub import constants, try_to_load_from_cache

    # importing the library takes a second
    if not any(Path(constants.HF_HUB_CACHE).glob("models--*")):
        return []
    from fastembed import TextEmbedding

    found = list[ModelCandidate]()
    for entry in TextEmbedding.list_supported_models():
        source = entry["sources"].get("hf")
        description = str(entry.get("description", "")).lower()
        if not source or any(words in description for words in NO_TEXT_EMBEDDER):
            continue
        needed = [entry["model_file"], *entry["additional_files"], TOKENIZER]
        paths = [try_to_load_from_cache(source, name) for name in needed]
        files = [Path(path) for path in paths if isinstance(path, str)]
        if len(files) == len(needed) and all(file.is_file() for file in files):
            known = languages_of(entry["model"], description)
            size = sum(file.stat().st_size for file in files)
            found.append(ModelCandidate("fastembed", entry["model"], "", size, known))
    return found


def languages_of(model: str, description: str = "") -> frozenset[str] | None:
    """Return the languages that a model knows, by its description in the library's list or its
    name; None if neither shows that.

    languages_of("all-minilm:33m")  # english
    languages_of("jina/jina-embeddings-v2-base-de")  # english and german
    languages_of("bge-m3")  # ALL_LANGUAGES
    languages_of("my-model")  # None
    """
    named = {language for language in LANGUAGE_NAMES if re.search(rf"\b{language}\b", description)}
    if named:
        return frozenset(named)
    name = last_part(model)
    if MULTILINGUAL.search(name) or "multilingual" in description:
        return ALL_LANGUAGES
    for code, language in BILINGUAL.items():
        if re.search(rf"[-_]{code}(?![a-z])", name):
            return frozenset({"english", language})
    if knows_english_alone(name) or re.search(r"[-_](?:en|english)(?![a-z])", name):
        return frozenset({"english"})
    return None


def measure_rates(
    candidates: Iterable[ModelCandidate], texts: Sequence[str]
) -> dict[ModelCandidate, int]:
    """Return the characters per second that each of these models embeds. A model that fails, or
    takes too long, has none.

    The smallest comes first. A text that is not counted lets a model be loaded.
    """
    deadline = time.monotonic() + TRY_SECONDS
    chars = sum(map(len, texts))
    rates = dict[ModelCandidate, int]()
    for candidate in sorted(candidates, key=lambda candidate: candidate.size):
        most = deadline - time.monotonic()
        if most <= 0:
            break
        call = _seconds_on_server if candidate.host else _seconds_in_process
        trial = in_thread(partial(call, candidate, texts, time.monotonic() + most), "trial")
        with suppress(Exception):  # any model may fail in any way, and then is not proposed
            seconds = trial.result(most)
            rates[candidate] = max(1, round(chars / max(seconds, 1e-6)))
    return rates


def _seconds_on_server(candidate: ModelCandidate, texts: Sequence[str], deadline: float) -> float:
    """Return how long a server takes for these texts. Raises what httpx raises, and ValueError."""
    seconds = max(0.1, deadline - time.monotonic())
    with httpx.Client(base_url=candidate.host, timeout=seconds, verify=tls_context()) as client:
        began = 0.0
        for sent in (texts[:1], texts):
            began = time.monotonic()
            answer = client.post("/api/embed", json={"model": candidate.model, "input": list(sent)})
            vectors = answer.raise_for_status().json()["embeddings"]
            if len(vectors) != len(sent):
                raise ValueError(f"{len(vectors)} vectors for {len(sent)} texts")
        return time.monotonic() - began


def _seconds_in_process(candidate: ModelCandidate, texts: Sequence[str], deadline: float) -> float:
    """Return how long a model takes for these texts on one core. Raises RagIndexError, and
    TimeoutError."""
    settings = EmbedderSettings(kind=candidate.kind, model=candidate.model)
    with closing(open_embedder(settings)) as embedder:
        began = 0.0
        for number, text in enumerate([texts[0], *texts]):
            if number == 1:
                began = time.monotonic()
            _embed_in_parts(embedder, text)
            if time.monotonic() > deadline:
                raise TimeoutError
        return time.monotonic() - began


def _embed_in_parts(embedder: Embedder, text: str) -> None:
    """Embed a text, in halves if it is too long, as a run would. Raises what the embedder raises or
    returns."""
    [entry] = embedder.embed_documents([text])
    if isinstance(entry, TextTooLong) and len(text) > 1:
        middle = len(text) // 2
        _embed_in_parts(embedder, text[:middle])
        _embed_in_parts(embedder, text[middle:])
    elif isinstance(entry, Exception):
        raise entry


def sample_texts(texts: Iterable[str]) -> list[str]:
    """Return some of these texts, short and long ones, none longer than a chunk."""
    shortened = {text.strip()[:SAMPLE_CHARS] for text in texts if text.strip()}
    by_length = sorted(shortened, key=lambda text: (len(text), text))
    if len(by_length) <= SAMPLES:
        return by_length
    last = len(by_length) - 1
    return [by_length[number * last // (SAMPLES - 1)] for number in range(SAMPLES)]


def _nothing_better(languages: Sequence[str], candidates: Sequence[ModelCandidate]) -> str:
    """Return why wordllama is proposed, and which model would find more."""
    is_english = set(languages) == {"english"}
    limits = "" if is_english else ", and knows English alone"
    if candidates and not is_english:
        names = ", ".join(candidate.model for candidate in candidates)
        limits += f" ({names} may not know it)"
    model, size = OFFERS[is_english]
    needs = "" if find_spec("fastembed") else f" after {install_command(EXTRA)}"
    return (
        f"wordllama needs nothing else{limits}. {model} ({size}, downloaded once) also finds what"
        f' says the same in other words: kind = "fastembed"{needs}.'
    )


def _named(languages: Sequence[str]) -> str:
    """Return languages as a message names them: "English and German"."""
    names = [name.capitalize() if name in LANGUAGE_NAMES else name for name in languages]
    return " and ".join(names)
