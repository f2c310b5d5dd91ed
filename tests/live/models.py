"""Models for an Ollama server with random weights from a fixed seed: meaningless, but as slow as
real ones."""

import itertools
import string
from pathlib import Path

import gguf
import numpy as np

NOMIC_SIZE = {"layers": 12, "width": 768, "feed_forward": 3072, "vocabulary": 30_522}
"""Arguments for a model that is as slow as nomic-embed-text."""


def _writer(
    path: Path, architecture: str, layers: int, width: int, feed_forward: int, heads: int
) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("rag-index test")
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    return writer


def write_embedding_gguf(
    path, *, layers=2, width=64, feed_forward=256, vocabulary=1536, seed=1
) -> Path:
    """Write an embedding model with the architecture of nomic-embed-text and random weights."""
    writer = _writer(path, "nomic-bert", layers, width, feed_forward, max(1, width // 64))
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_rope_freq_base(1000.0)
    tokens = _vocabulary(vocabulary)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 5 + [1] * (len(tokens) - 5))
    writer.add_token_type_count(2)
    numbers = {
        "padding": 0,
        "unknown": 1,
        "cls": 2,
        "bos": 2,
        "eos": 3,
        "seperator": 3,
        "mask": 4,
    }  # so spelt
    for name, number in numbers.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    random = np.random.default_rng(seed)
    _matrix(writer, random, "token_embd", len(tokens), width)
    types = (
        random.standard_normal((2, width), dtype=np.float32) / 100
    )  # more would make all texts alike
    writer.add_tensor("token_types.weight", types)  # float16 aborts the server
    _norm(writer, "token_embd_norm", width)
    for block in range(layers):
        _matrix(writer, random, f"blk.{block}.attn_qkv", 3 * width, width)
        _matrix(writer, random, f"blk.{block}.attn_output", width, width)
        _norm(writer, f"blk.{block}.attn_output_norm", width)
        _matrix(writer, random, f"blk.{block}.ffn_gate", feed_forward, width)
        _matrix(writer, random, f"blk.{block}.ffn_up", feed_forward, width)
        _matrix(writer, random, f"blk.{block}.ffn_down", width, feed_forward)
        _norm(writer, f"blk.{block}.layer_output_norm", width)
    return _write(writer, path)


def write_generating_gguf(path: Path, says: str) -> Path:
    """Write a model that answers /api/generate with the sentence `says`, whatever the question.

    Its words must differ. Its layers add nothing, and what follows a token is decided by its
    embedding alone: the words of the sentence one after another, its first word after any other
    token, the end after its last.
    """
    layers, width = 2, 64
    writer = _writer(path, "llama", layers, width, 4 * width, 2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(width // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    pieces = [f"▁{a}{b}" for a, b in itertools.product(string.ascii_lowercase, "aeiounrst")]
    words = [f"▁{word}" for word in says.split()]
    pieces += [word for word in words if word not in pieces]
    pieces += ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(pieces))])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(pieces)])
    for name, number in (("unknown", 0), ("bos", 1), ("eos", 2)):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    random = np.random.default_rng(2)
    embedding, output = _saying(random, tokens, words, width)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for block in range(layers):
        for name in ("attn_q", "attn_k", "attn_v"):
            _matrix(writer, random, f"blk.{block}.{name}", width, width)
        _matrix(writer, random, f"blk.{block}.attn_output", width, width, scale=0.0)
        _matrix(writer, random, f"blk.{block}.ffn_gate", 4 * width, width)
        _matrix(writer, random, f"blk.{block}.ffn_up", 4 * width, width)
        _matrix(writer, random, f"blk.{block}.ffn_down", width, 4 * width, scale=0.0)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{name}.weight", np.ones(width, np.float32))
    return _write(writer, path)


def _saying(
    random, tokens: list[str], words: list[str], width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return embedding and output weights that make the words follow each other."""
    first = random.standard_normal(width, dtype=np.float32)
    noise = random.standard_normal((len(tokens), width), dtype=np.float32) / 10
    embedding, output = first + noise, noise.copy()
    chain = [tokens.index(word) for word in words]
    for token, following in zip(chain, [*chain[1:], tokens.index("</s>")], strict=True):
        embedding[token] = random.standard_normal(width, dtype=np.float32)
        output[following] = embedding[token]
    output[chain[0]] = first
    return embedding.astype(np.float16), output.astype(np.float16)


def _vocabulary(count: int) -> list[str]:
    """Return a vocabulary of `count` tokens: letters and digits, pairs, then triples, each also at
    a word's start."""
    singles = string.ascii_letters + string.digits + string.punctuation
    lower = string.ascii_lowercase
    longer = map(
        "".join,
        itertools.chain(itertools.product(lower, lower), itertools.product(lower, lower, lower)),
    )
    pieces = (form for piece in itertools.chain(singles, longer) for form in (f"▁{piece}", piece))
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *itertools.islice(pieces, count - 5)]


def _matrix(
    writer: gguf.GGUFWriter, random, name: str, rows: int, columns: int, *, scale: float = 1.0
) -> None:
    values = (
        random.standard_normal((rows, columns), dtype=np.float32)
        * scale
        / np.sqrt(columns, dtype=np.float32)
    )
    writer.add_tensor(f"{name}.weight", values.astype(np.float16))


def _norm(writer: gguf.GGUFWriter, name: str, width: int) -> None:
    writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.add_tensor(f"{name}.bias", np.zeros(width, np.float32))


def _write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
