"""The files of a model that fastembed runs: found in a folder, in the cache of the model hub, or on
the hub.

`find_model` returns them, for embedders and for rerankers. What decides a vector is their content,
not their place: the weights, the tokenizer, the configuration, and how the vectors of tokens become
one (the pooling).
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import ssl
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rag_index.components.embedders.identity import last_part
from rag_index.core.connections import causes, why_failed
from rag_index.errors import ModelMissing, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

EXTRA = "fastembed"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
POOLING, LIMITS = "1_Pooling/config.json", "sentence_bert_config.json"
CONFIGS = (TOKENIZER, TOKENIZER_CONFIG, "config.json", "special_tokens_map.json", POOLING, LIMITS)
"""The files that decide a vector beside the weights."""
POOLINGS = {
    "cls": "CLS",
    "cls_token": "CLS",
    "mean": "MEAN",
    "mean_tokens": "MEAN",
    "lasttoken": "LAST_TOKEN",
}
"""How sentence-transformers writes in `POOLING` how the vectors of tokens become one, and
fastembed's name for it."""
USUAL_TOKENS = 512
"""The tokens that a model takes whose files do not say it: what BERT and its descendants take."""
PAD_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>")
"""How tokenizers write the token that fills short texts, if their files do not say it."""
OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
"""Weights in formats that onnxruntime cannot read."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""How the system says that nothing more can be written."""
MAX_REASON = 120
"""Characters of an error of the hub's client in a message."""
MAX_NAMED = 4
"""Files that a message names."""
HUB_SECONDS = 10.0
"""How long the first request waits for the hub. Its client would wait without end for one that
never answers."""
log = logging.getLogger("rag_index.embedders")


class Library(Protocol):
    """The models that fastembed runs for one purpose: embedders, or rerankers."""

    purpose: str
    """What its models are, in the words of a message, such as `text embedder`."""
    setting: str
    """The key of the settings that names one."""
    needs_pooling: bool
    """Whether its models make a vector of each token, which have to become one."""

    def listed(self) -> list[dict[str, Any]]:
        """Return the names, sources and files of the models that the library knows by name."""

    def pooling_of(self, name: str) -> str:
        """Return the pooling of a listed model, as fastembed names it, or what else makes its
        vectors."""

    def register(self, folder: Path, weights: Sequence[str], pooling: str) -> str:
        """Make the weights of a folder known to the library, and return their name there."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this machine.

    Attributes:
        name: The name by which the library knows it.
        folder: Where its files are.
        weights: The ONNX file and its data files, relative to the folder.
        pooling: How the vectors of tokens become one, as fastembed names it; "" for a model that
            makes none.
        told_by: What says so: a file, or the name of a listed model.
        place: What the settings have to name to find it again: a folder, or a name of the hub.
        revision: The commit of the hub that the files are of; "" for a folder.
    """

    name: str
    folder: Path
    weights: tuple[str, ...]
    pooling: str
    told_by: str
    place: str
    revision: str = ""

    def digest(self) -> str:
        """Return a hash of the pooling, and of the files that decide the vectors (90 MB in 100
        ms)."""
        digest = hashlib.blake2b(self.pooling.encode(), digest_size=32)
        names = [*self.weights, *(name for name in CONFIGS if (self.folder / name).is_file())]
        for name in names:
            digest.update(name.rsplit("/", 1)[-1].encode())
            with (self.folder / name).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    @contextmanager
    def options(self) -> Iterator[dict[str, str]]:
        """Yield what the library needs in order to load these files. It needs a tokenizer's
        configuration, which not every folder has: then a temporary folder has one, and links to the
        files."""
        if (self.folder / TOKENIZER_CONFIG).is_file():
            yield self._options(self.folder)
            return
        with tempfile.TemporaryDirectory(prefix="rag-index-model-") as temporary:
            folder = Path(temporary)
            for name in (*self.weights, *CONFIGS):
                if (self.folder / name).is_file():
                    (folder / name).parent.mkdir(exist_ok=True, parents=True)
                    (folder / name).symlink_to((self.folder / name).resolve())
            (folder / TOKENIZER_CONFIG).write_text(json.dumps(_tokenizer_config(self.folder)))
            yield self._options(folder)

    def _options(self, folder: Path) -> dict[str, str]:
        return {
            "model_name": self.name,
            "specific_model_path": str(folder),
            "cache_dir": str(folder),
        }


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return the limit and the filling token of a model, as its other files say them."""
    tokenizer = json.loads((folder / TOKENIZER).read_text())
    truncation, padding = tokenizer.get("truncation") or {}, tokenizer.get("padding") or {}
    tokens = {token.get("content") for token in tokenizer.get("added_tokens", ())}
    pad = padding.get("pad_token") or next(
        (token for token in PAD_TOKENS if token in tokens), PAD_TOKENS[0]
    )
    # all-MiniLM-L6-v2 cuts at 128 tokens by its tokenizer, and was trained with 256: that is what
    # it takes.
    limits = folder / LIMITS
    trained_with = (
        json.loads(limits.read_text()).get("max_seq_length") if limits.is_file() else None
    )
    most = trained_with or truncation.get("max_length") or USUAL_TOKENS
    return {"model_max_length": most, "pad_token": pad}


def find_model(
    library: Library, given: str, *, revision: str = "", download: bool = True
) -> ModelFiles:
    """Return the files of a model, given by its folder, or by its name in the list of `library`.

    The owner before a name may be left out. Files of a name are looked for in the cache of the hub,
    at this `revision` if one is given, and downloaded once, unless `download` forbids it. Raises
    ModelMissing with the remedy.
    """
    try:
        return _find(library, given, revision, download=download)
    except OSError as exc:
        raise ModelMissing(
            f"the files of model {given!r} cannot be read ({one_line(exc)}): correct that"
        ) from exc


def _find(library: Library, given: str, revision: str, *, download: bool) -> ModelFiles:
    folder = Path(given).expanduser()
    listed = {entry["model"]: entry for entry in library.listed() if entry["sources"]["hf"]}
    entry = next(
        (entry for name, entry in listed.items() if last_part(name) == last_part(given)), None
    )
    if folder.is_dir():
        return _in_folder(library, folder, entry, place=str(folder.resolve()))
    if entry is None or ("/" in given and entry["model"].lower() != given.lower()):
        raise ModelMissing(_unknown(library, given, list(listed)))
    snapshot = _downloaded(library, entry, revision) if download else _cached(entry, revision)
    if snapshot is None:
        raise ModelMissing(f"the model {entry['model']} is not on this machine")
    return _in_folder(library, snapshot, entry, place=entry["model"], revision=snapshot.name)


def _unknown(library: Library, given: str, listed: Sequence[str]) -> str:
    """Return the message about a name that is neither a folder nor a model of the library."""
    # 'models/minilm': a path, whose folder is not there
    if Path(given).expanduser().is_absolute() or given.startswith((".", "~")):
        return f"there is no folder {given!r}: correct {library.setting}, or bring the folder"
    # 'Qdrant/clip-ViT-B-32-vision': fastembed has it, and for something else
    if other := _other_purpose(library, given):
        return f"{given!r} is a {other}, and no {library.purpose}: set {library.setting} to one"
    # 'BAAI/bge-smal-en-v1.5': a slip
    names = {name.lower(): name for name in listed} | {last_part(name): name for name in listed}
    near = get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {names[near[0]]!r}? Otherwise " if near else ""
    return (
        f"{given!r} is no folder, and not in fastembed's list of models: {hint}set"
        f" {library.setting} to one"
    )


def _other_purpose(library: Library, given: str) -> str:
    """Return what a model of this name is, if fastembed has it for another purpose than `library`;
    else ""."""
    import fastembed
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    classes = {
        "text embedder": fastembed.TextEmbedding,
        "reranker": TextCrossEncoder,
        "model for images": fastembed.ImageEmbedding,
        "model of sparse vectors": fastembed.SparseTextEmbedding,
        "model of several vectors for each text": fastembed.LateInteractionTextEmbedding,
    }
    for purpose, known in classes.items():
        if purpose != library.purpose and any(
            last_part(entry["model"]) == last_part(given) for entry in known.list_supported_models()
        ):
            return purpose
    return ""


def _in_folder(
    library: Library,
    folder: Path,
    entry: Mapping[str, Any] | None,
    *,
    place: str,
    revision: str = "",
) -> ModelFiles:
    """Return the model of a folder. `entry` is the listed model of this name, if there is one."""
    is_listed = entry is not None and (folder / entry["model_file"]).is_file()
    if entry is not None and is_listed:
        weights: tuple[str, ...] = (entry["model_file"], *entry["additional_files"])
    else:
        weights = _only_weights(folder)
    if not (folder / TOKENIZER).is_file():
        raise ModelMissing(f"{str(folder)!r} has no {TOKENIZER}: bring that file of the model, too")
    if not library.needs_pooling:
        name = library.register(folder, weights, "")
        return ModelFiles(name, folder, weights, "", "", place, revision)
    by_name = library.pooling_of(entry["model"]) if entry is not None and is_listed else ""
    # 'jinaai/jina-embeddings-v3': the library has a way of its own to run it
    is_special = bool(by_name) and by_name not in POOLINGS.values()
    if (folder / POOLING).is_file() and not is_special:
        pooling = _pooling_of(folder)
        name = library.register(folder, weights, pooling)
        return ModelFiles(name, folder, weights, pooling, POOLING, place, revision)
    if entry is not None and is_listed:
        name = entry["model"]
        return ModelFiles(name, folder, weights, by_name, f"the name {name}", place, revision)
    raise ModelMissing(
        f"{str(folder)!r} does not say how the vectors of tokens become one: bring {POOLING} of the"
        " model, too, or name the folder as fastembed's list names the model"
    )


def _only_weights(folder: Path) -> tuple[str, ...]:
    """Return the one ONNX file of a folder, and the files with its data. Raises ModelMissing if
    there is not one."""
    found = sorted(file for file in folder.rglob("*.onnx") if file.is_file())
    files = [file.relative_to(folder).as_posix() for file in found]
    if not files:
        others = [file.name for file in sorted(folder.rglob("*")) if file.suffix in OTHER_WEIGHTS]
        has = f"{others[0]}, and " if others else ""
        raise ModelMissing(f"{str(folder)!r} has {has}no ONNX file: bring the model in this format")
    if len(files) > 1:
        named = ", ".join(files[:MAX_NAMED])
        raise ModelMissing(
            f"{str(folder)!r} has {len(files)} ONNX files ({named}): leave the one that is to be"
            " used there"
        )
    beside = found[0].parent
    data = sorted(file.relative_to(folder).as_posix() for file in beside.glob("*.onnx?data*"))
    return (files[0], *data)


def _pooling_of(folder: Path) -> str:
    """Return fastembed's name of the pooling that a folder names. Raises ModelMissing if it is none
    of these."""
    try:
        config = json.loads((folder / POOLING).read_text())
        flags = [
            key.removeprefix("pooling_mode_") for key, value in config.items() if value is True
        ]
    except (OSError, ValueError, AttributeError) as exc:
        raise ModelMissing(
            f"{POOLING} of {str(folder)!r} cannot be read ({one_line(exc)}): bring it again"
        ) from exc
    for mode in (config.get("pooling_mode"), *flags):
        if mode in POOLINGS:
            return POOLINGS[mode]
    known = ", ".join(sorted(set(POOLINGS)))
    raise ModelMissing(
        f"{POOLING} of {str(folder)!r} names no pooling that fastembed has ({known}): use another"
        " model"
    )


def _cached(entry: Mapping[str, Any], revision: str) -> Path | None:
    """Return the folder of a listed model's files in the cache of the hub; None if it does not have
    all of them."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                entry["sources"]["hf"], local_files_only=True, **_wanted(entry, revision)
            )
        )
    except (OSError, ValueError):  # nothing of it, or a part: a download was killed
        return None
    return folder if _has_all(folder, entry) else None


def _downloaded(library: Library, entry: Mapping[str, Any], revision: str) -> Path:
    """Return the folder of a listed model's files, which are downloaded if the cache has not all of
    them.

    The cache is the hub's own. (The library itself would try for 39 seconds, and keep the files in
    a folder for temporary files that all users share.) Raises ModelMissing.
    """
    if (cached := _cached(entry, revision)) is not None:
        return cached
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # each worker would print some
    constants.HF_HUB_DISABLE_XET = (
        True  # that protocol needs another host, which a mirror does not have
    )
    constants.HF_HUB_DISABLE_TELEMETRY = (
        True  # it would ask the hub which programs it should look for here
    )
    source = entry["sources"]["hf"]
    try:
        HfApi().model_info(source, revision=revision or None, timeout=HUB_SECONDS)
        log.warning(
            "downloading the model %s (%.0f MB), once", entry["model"], entry["size_in_GB"] * 1000
        )
        folder = Path(snapshot_download(source, **_wanted(entry, revision)))
    except Exception as exc:  # of the hub, of its HTTP library, or of the disk
        raise ModelMissing(_no_download(library, entry, revision, exc)) from exc
    if not _has_all(folder, entry):
        raise ModelMissing(
            f"{source} on {constants.ENDPOINT} does not have all files of the model"
            f" {entry['model']} ({', '.join(_needed(entry))}): set {library.setting} to another one"
        )
    return folder


def _wanted(entry: Mapping[str, Any], revision: str) -> dict[str, Any]:
    """Return which files of a model, and which commit, the hub is asked for."""
    weights = [entry["model_file"], *entry["additional_files"]]
    return {"revision": revision or None, "allow_patterns": [*weights, *CONFIGS]}


def _needed(entry: Mapping[str, Any]) -> list[str]:
    return [entry["model_file"], *entry["additional_files"], TOKENIZER]


def _has_all(folder: Path, entry: Mapping[str, Any]) -> bool:
    return all((folder / name).is_file() for name in _needed(entry))


def _no_download(
    library: Library, entry: Mapping[str, Any], revision: str, error: Exception
) -> str:
    """Return the message about a model that cannot be downloaded: why, and what to do."""
    from huggingface_hub import constants

    name, source = entry["model"], entry["sources"]["hf"]
    of_disk = [one for one in causes(error) if isinstance(one, OSError) and one.errno in FULL]
    if of_disk and not isinstance(of_disk[0], ssl.SSLError):  # whose errno is a number of OpenSSL
        return (
            f"the model {name} ({entry['size_in_GB'] * 1000:.0f} MB) cannot be written to"
            f" {constants.HF_HUB_CACHE} ({of_disk[0].strerror}): make that possible, or let HF_HOME"
            " name another folder"
        )
    local = name.rsplit("/", 1)[-1]
    at = f" --revision {revision}" if revision else ""
    return (
        f"the model {name} is not on this machine and cannot be downloaded"
        f" ({_why(error, revision)}): run "
        f"`hf download {source}{at} --local-dir {local}` on a machine with internet, bring that"
        " folder here, and set "
        f'{library.setting} = "{local}"'
    )


def _why(error: Exception, revision: str) -> str:
    """Return why the hub gave no files, in a few words."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if any(isinstance(one, errors.OfflineModeIsEnabled) for one in causes(error)):
        return "HF_HUB_OFFLINE is set"
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{hub} does not have its revision {revision} any more; `rag-index rebuild INDEX` takes"
            " the present one"
        )
    if status in (401, 403):
        return (
            f"{hub} answers {status}: it needs a token, which HF_TOKEN names, or does not have the"
            " model"
        )
    if status:
        return f"{hub} answers {status}"
    if reason := why_failed(error, hub):
        return reason
    return f"{hub} cannot be reached: {one_line(error, MAX_REASON) or type(error).__name__}"
