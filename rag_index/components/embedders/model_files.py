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
"""The most tokens of a text if the files of a model do not name them: those of BERT and its
descendants."""
PAD_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>")
"""How tokenizers write the token that fills short texts, if their files do not name it."""
OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
"""Weights in formats that onnxruntime cannot read."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""The errors of the system after which nothing more can be written."""
MAX_REASON = 120
"""The characters of an error of the hub's client in a message (chosen)."""
MAX_NAMED = 4
"""The files that a message names (chosen)."""
HUB_SECONDS = 10.0
"""The seconds for which the first request waits for the hub (chosen). Its client would wait without
end for a hub that never answers."""
log = logging.getLogger("rag_index.embedders")


class Library(Protocol):
    """The models that fastembed runs for one purpose: embedders, or rerankers."""

    purpose: str
    """What its models are, in the words of a message, such as `text embedder`."""
    setting: str
    """The key of the settings that names a model."""
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
        pooling_source: What names the pooling: a file, or the name of a listed model.
        place: What the settings have to name to find it again: a folder, or a name of the hub.
        revision: The commit of the hub that the files are of; "" for a folder.
    """

    name: str
    folder: Path
    weights: tuple[str, ...]
    pooling: str
    pooling_source: str
    place: str
    revision: str = ""

    def digest(self) -> str:
        """Return a hash of the pooling, and of the files that decide the vectors (90 MB in 100
        ms)."""
        digest = hashlib.blake2b(self.pooling.encode(), digest_size=32)
        for name in (*self.weights, *self._existing(CONFIGS)):
            digest.update(name.rsplit("/", 1)[-1].encode())
            with (self.folder / name).open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    @contextmanager
    def options(self) -> Iterator[dict[str, str]]:
        """Yield what the library needs in order to load these files.

        It needs a tokenizer's configuration, which not every folder has. Then a temporary folder
        has one, and links to the files.
        """
        if (self.folder / TOKENIZER_CONFIG).is_file():
            yield self._options(self.folder)
            return
        with tempfile.TemporaryDirectory(prefix="rag-index-model-") as temporary:
            folder = Path(temporary)
            for name in self._existing((*self.weights, *CONFIGS)):
                link = folder / name
                link.parent.mkdir(exist_ok=True, parents=True)
                link.symlink_to((self.folder / name).resolve())
            (folder / TOKENIZER_CONFIG).write_text(json.dumps(_tokenizer_config(self.folder)))
            yield self._options(folder)

    def _existing(self, names: Sequence[str]) -> list[str]:
        """Return those of these names that are files of the model."""
        return [name for name in names if (self.folder / name).is_file()]

    def _options(self, folder: Path) -> dict[str, str]:
        path = str(folder)
        return {"model_name": self.name, "specific_model_path": path, "cache_dir": path}


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return the limit and the filling token of a model, as its other files name them."""
    tokenizer = json.loads((folder / TOKENIZER).read_text())
    padding = tokenizer.get("padding") or {}
    pad = padding.get("pad_token")
    if not pad:
        tokens = {token.get("content") for token in tokenizer.get("added_tokens", ())}
        usual = [token for token in PAD_TOKENS if token in tokens]
        pad = usual[0] if usual else PAD_TOKENS[0]
    # all-MiniLM-L6-v2 cuts at 128 tokens by its tokenizer, and was trained with 256: that is what
    # it takes.
    limits = folder / LIMITS
    most = None
    if limits.is_file():
        most = json.loads(limits.read_text()).get("max_seq_length")
    if not most:
        truncation = tokenizer.get("truncation") or {}
        most = truncation.get("max_length") or USUAL_TOKENS
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
    listed = {entry["model"]: entry for entry in library.listed() if entry["sources"]["hf"]}
    same_names = [name for name in listed if last_part(name) == last_part(given)]
    entry = listed[same_names[0]] if same_names else None
    folder = Path(given).expanduser()
    if folder.is_dir():
        return _in_folder(library, folder, entry, place=str(folder.resolve()))
    # "other/all-MiniLM-L6-v2": the model of another owner
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
    other = _other_purpose(library, given)
    if other:
        return f"{given!r} is a {other}, and no {library.purpose}: set {library.setting} to one"
    # 'BAAI/bge-smal-en-v1.5': a slip
    names = {name.lower(): name for name in listed}
    names |= {last_part(name): name for name in listed}
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
    for purpose, models in classes.items():
        if purpose == library.purpose:
            continue
        names = [last_part(entry["model"]) for entry in models.list_supported_models()]
        if last_part(given) in names:
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
    # another export of a listed model has other files
    if entry is not None and not (folder / entry["model_file"]).is_file():
        entry = None
    weights = _only_weights(folder) if entry is None else _weights_of(entry)
    if not (folder / TOKENIZER).is_file():
        raise ModelMissing(f"{str(folder)!r} has no {TOKENIZER}: bring that file of the model, too")
    if not library.needs_pooling:
        name = library.register(folder, weights, "")
        return ModelFiles(name, folder, weights, "", "", place, revision)
    by_name = "" if entry is None else library.pooling_of(entry["model"])
    # 'jinaai/jina-embeddings-v3': the library has a way of its own to run it
    is_special = bool(by_name) and by_name not in POOLINGS.values()
    if (folder / POOLING).is_file() and not is_special:
        pooling = _pooling_of(folder)
        name = library.register(folder, weights, pooling)
        return ModelFiles(name, folder, weights, pooling, POOLING, place, revision)
    if entry is not None:
        name = entry["model"]
        return ModelFiles(name, folder, weights, by_name, f"the name {name}", place, revision)
    raise ModelMissing(
        f"{str(folder)!r} does not say how the vectors of tokens become one: bring {POOLING} of the"
        " model, too, or name the folder as fastembed's list names the model"
    )


def _weights_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a listed model's ONNX file and data files."""
    return (entry["model_file"], *entry["additional_files"])


def _only_weights(folder: Path) -> tuple[str, ...]:
    """Return the one ONNX file of a folder, and the files with its data. Raises ModelMissing if
    there is none, or more than one."""
    found = sorted(file for file in folder.rglob("*.onnx") if file.is_file())
    if not found:
        others = [file.name for file in sorted(folder.rglob("*")) if file.suffix in OTHER_WEIGHTS]
        has = f"{others[0]}, and " if others else ""
        raise ModelMissing(f"{str(folder)!r} has {has}no ONNX file: bring the model in this format")
    files = [file.relative_to(folder).as_posix() for file in found]
    if len(files) > 1:
        named = ", ".join(files[:MAX_NAMED])
        raise ModelMissing(
            f"{str(folder)!r} has {len(files)} ONNX files ({named}): leave the one that is to be"
            " used there"
        )
    # "model.onnx_data"
    data = found[0].parent.glob("*.onnx?data*")
    return (files[0], *sorted(file.relative_to(folder).as_posix() for file in data))


def _pooling_of(folder: Path) -> str:
    """Return fastembed's name of the pooling that a folder names. Raises ModelMissing if fastembed
    has no such pooling."""
    try:
        config = json.loads((folder / POOLING).read_text())
        # {"pooling_mode_mean_tokens": true}, in older files
        flags = [name.removeprefix("pooling_mode_") for name, on in config.items() if on is True]
    except (OSError, ValueError, AttributeError) as exc:
        raise ModelMissing(
            f"{POOLING} of {str(folder)!r} cannot be read ({one_line(exc)}): bring it again"
        ) from exc
    for mode in (config.get("pooling_mode"), *flags):
        if mode in POOLINGS:
            return POOLINGS[mode]
    known = ", ".join(sorted(POOLINGS))
    raise ModelMissing(
        f"{POOLING} of {str(folder)!r} names no pooling that fastembed has ({known}): use another"
        " model"
    )


def _cached(entry: Mapping[str, Any], revision: str) -> Path | None:
    """Return the folder of a listed model's files in the cache of the hub; None if the cache lacks
    some of them."""
    from huggingface_hub import snapshot_download

    source = entry["sources"]["hf"]
    wanted = _wanted(entry, revision)
    try:
        folder = Path(snapshot_download(source, local_files_only=True, **wanted))
    except (OSError, ValueError):  # nothing of it, or a part: a download was killed
        return None
    return folder if _has_all(folder, entry) else None


def _downloaded(library: Library, entry: Mapping[str, Any], revision: str) -> Path:
    """Return the folder of a listed model's files, which are downloaded if the cache lacks some of
    them.

    The cache is the hub's own. (The library itself would try for 39 seconds, and keep the files in
    a folder for temporary files that all users share.) Raises ModelMissing.
    """
    if (cached := _cached(entry, revision)) is not None:
        return cached
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()  # each worker would print some
    # the protocol Xet needs another host, which a mirror does not have
    constants.HF_HUB_DISABLE_XET = True
    # the client would ask the hub which programs to look for on this machine
    constants.HF_HUB_DISABLE_TELEMETRY = True
    source, name = entry["sources"]["hf"], entry["model"]
    try:
        HfApi().model_info(source, revision=revision or None, timeout=HUB_SECONDS)
        log.warning("downloading the model %s (%.0f MB), once", name, entry["size_in_GB"] * 1000)
        folder = Path(snapshot_download(source, **_wanted(entry, revision)))
    except Exception as exc:  # of the hub, of its HTTP library, or of the disk
        raise ModelMissing(_no_download(library, entry, revision, exc)) from exc
    if not _has_all(folder, entry):
        needed = ", ".join(_needed(entry))
        raise ModelMissing(
            f"{source} on {constants.ENDPOINT} does not have all files of the model {name}"
            f" ({needed}): set {library.setting} to another one"
        )
    return folder


def _wanted(entry: Mapping[str, Any], revision: str) -> dict[str, Any]:
    """Return which files of a model, and which commit, are requested from the hub."""
    files = [*_weights_of(entry), *CONFIGS]
    return {"revision": revision or None, "allow_patterns": files}


def _needed(entry: Mapping[str, Any]) -> list[str]:
    return [*_weights_of(entry), TOKENIZER]


def _has_all(folder: Path, entry: Mapping[str, Any]) -> bool:
    files = [folder / name for name in _needed(entry)]
    return all(file.is_file() for file in files)


def _no_download(
    library: Library, entry: Mapping[str, Any], revision: str, error: Exception
) -> str:
    """Return the message about a model that cannot be downloaded: why, and what to do."""
    from huggingface_hub import constants

    name = entry["model"]
    why_unwritten = _disk_error(error)
    if why_unwritten is not None:
        size = f"{entry['size_in_GB'] * 1000:.0f} MB"
        return (
            f"the model {name} ({size}) cannot be written to {constants.HF_HUB_CACHE}"
            f" ({why_unwritten}): make that possible, or let HF_HOME name another folder"
        )
    local = name.rsplit("/", 1)[-1]
    at = f" --revision {revision}" if revision else ""
    command = f"hf download {entry['sources']['hf']}{at} --local-dir {local}"
    why = _why(error, revision)
    return (
        f"the model {name} is not on this machine and cannot be downloaded ({why}): run"
        f" `{command}` on a machine with internet, bring that folder here, and set"
        f' {library.setting} = "{local}"'
    )


def _disk_error(error: Exception) -> str | None:
    """Return why the disk takes no files, None if something else is the cause of an error."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in FULL:
            # the errno of an SSLError is a number of OpenSSL
            return None if isinstance(cause, ssl.SSLError) else str(cause.strerror)
    return None


def _why(error: Exception, revision: str) -> str:
    """Return why the hub gave no files, in a few words."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes(error)):
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
