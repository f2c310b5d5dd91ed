"""Models of a kilobyte that fastembed loads: an embedder with 8-bit numbers, and a
cross-encoder."""

import base64
import json
import struct
import zlib
from pathlib import Path

EMBEDDER = (
    "eNq1VF9oE3ccv5udXn+OLj0yNmFrtIWR7KEMuuEm3v1+FCWlFiFFcZPD7rSJDZ1ZY64w08G6hzjRwT1uCUPUKIjCvagYobnfbylugu2mjBEYIs"
    "bXFjdw7ePY53sv2xDc0w5+4XL5fP98/uSM7h1Pu9kWpu9m3fnCzKw3kZ8smfrR/o1p15vKHmcDTD9q6kVTx9Ny/yu7ThTcY/kjmVm34OXL2bF8"
    "IeseZ4NMLzK9xPSy2fuxW/ImpvKTk9nCRMlzvWx/bFe2+C+82eXlCyfe+sowthpGTB/Wd4/OG9p/XvOh35rlKce3lpeWmqxdbzr+cDjeOBsG6U"
    "5T+98v9fnzz/Mv7Go3+l5UlZVeXlm5b8/FA7m8NAYuYzJIb+Pt+u/SYgdkLvcmX1w7xccbf8pEZSWsVat2ynlZzsV/5COdmlzNNOx48KX0Wzc4"
    "NFhw/BY0eIjfn/BOeV90gvR5Hg9+sP3Wu+jtRgczOeHoGdUUrdN2u/42noWStTco1h5YQA1fzXxKGtvAh8DZpG8ud5InKmcw+z27Vt0SappA3V"
    "lb0z4SqI1OyuEKNNHriIwHae639qv15APaAzv9QTOlpp2T5B+8RL89gnqvZr4BdhZ93xfryW+5psWE4z9Gn3qYqFyV440+gV3RZ5MsWqOkEQcO"
    "fX6K7tv1U6h7gAx8IRfXDMx8XVFOcrnvSZ+d+M6Bs4nvSGeHIi3oOzwDfgrnDmYNyJHOr/AlI2mndv0eb/Rd4rXqh2IufjLiQf1JF2QN970iUd"
    "ksFtcu26uZD4TFXo3qNO1R5FHK+RrcegS4CezSJF9JS7/1CydO60kHuw00E5VpEaS/g66vCdIHfZXF2rJTfkcNDV2zsbsgHy/ONOHLPOYlodUa"
    "sjOI7HymUs5vHLwU/g9Rv3iwHfsOwq+NCtzA+2aUIexsITch+bO89FLkU6d8nWYhB6Pq4oyFukPQ+Qr1omyGFtuuatVblCXoXkONkISnPAKrkC"
    "X42gWeexWyhznT4dDQz8BeEKT5enKncnxT0T7gLcg/0qDRd5s4NKE3NLwrSSfidPCNf76BYqzH2GQytsHUD9NH4WA/63E9L4vXyCeFiWNuafpZ"
    "zOEUe/b1Y8aZaehmz98w9oJhDHcxLdb7FwmJ1ag="
)
"""input_ids > Gather of 32 rows of 8 numbers > DynamicQuantizeLinear > DequantizeLinear: one scale
for a whole call. The rows of the signs and of `zero` are 0, and that of `nan` is not finite."""
CROSS_ENCODER = (
    "eNpl0EFKw1AQBuCZWNqXEdv4Vu1CCFlJVi5ciKANhaIIgriSbtq0eaShNg3mFbLsAbrwCDmCRyiewCN4BI/gL3UhOPD9m5nNP8q9fHekJzwUN8"
    "uLtR1nSak5DZo3sZ2bFzkXTnXzeZVmtgzcR5OsZ+Y+rsJDacSVKSOuuRV2RC2MKZJsWXapZkc7MxNuWfmKPR7w8G7DtJ8rog3sgK6JfIhgAht4"
    "hRreYAcf8AlfQH0iBR50wYdTOIMLiOAWHuAJJjCHAqr+6ORvQU/aqqVFDjRPfyIfBdKOrTW5zVb5eBmXi/830578PkJ35Eixdvc7R/GgIeQdfw"
    "PJwj8K"
)
"""The greatest id of a token over 32 is the score."""
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "nan",
    "zero",
    *(f"w{n}" for n in range(7, 32)),
]
LIMIT = 8


def tiny_model(
    *,
    taken: str = "input_ids",
    given: str = "last_hidden_state",
    pooled: bool = False,
    data: str = "",
) -> bytes:
    """Return an ONNX file that takes the numbers of tokens, and gives a row of 8 numbers for each:
    Gather.

    Args:
        taken: The name of its input.
        given: The name of its output.
        pooled: Whether it gives the mean of the rows.
        data: The file beside it that has the rows, as `rows` returns them, in place of this one.
    """
    rank = [_text(2, "b"), _text(2, "n"), b"\x08\x08"]
    table = b"\x08" + bytes([len(WORDS)]) + b"\x08\x08" + b"\x10\x01" + _text(8, "rows")
    if data:
        table += _part(13, _text(1, "location") + _text(2, data)) + b"\x70\x01"
    else:
        table += _part(9, rows())
    found = "tokens" if pooled else given
    nodes = [_text(1, "rows") + _text(1, taken) + _text(2, found) + _text(4, "Gather")]
    if pooled:
        axes = _text(1, "axes") + b"\x40\x01" + b"\xa0\x01\x07"
        dropped = _text(1, "keepdims") + b"\x18\x00" + b"\xa0\x01\x02"
        mean = _text(1, found) + _text(2, given) + _text(4, "ReduceMean")
        nodes.append(mean + _part(5, axes) + _part(5, dropped))
        rank = [_text(2, "b"), b"\x08\x08"]
    graph = _many(1, *nodes) + _text(2, "tiny") + _part(5, table)
    graph += _part(11, _value(taken, 7, [_text(2, "b"), _text(2, "n")])) + _part(
        12, _value(given, 1, rank)
    )
    return b"\x08\x08" + _part(7, graph) + _part(8, _text(1, "") + b"\x10\x0d")


def rows() -> bytes:
    """Return the numbers of all tokens; those of the signs are 0, but for that of unknown words."""
    table = list[bytes]()
    for number, word in enumerate(WORDS):
        row = [0.0] * 8
        if word == "[UNK]" or not word.startswith("["):
            row = [float((number * factor) % 11 - 5) for factor in range(1, 9)]
        table.append(struct.pack("<8f", *row))
    return b"".join(table)


def _part(number: int, content: bytes) -> bytes:
    """Return a field of protobuf with content of any length."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _part(number, text.encode())


def _many(number: int, *parts: bytes) -> bytes:
    return b"".join(_part(number, part) for part in parts)


def _varint(value: int) -> bytes:
    low, high = value & 127, value >> 7
    return bytes([low | 128]) + _varint(high) if high else bytes([low])


def _value(name: str, kind: int, dimensions: list[bytes]) -> bytes:
    """Return the description of an input or output: of 64-bit integers (7), or of 32-bit floats
    (1)."""
    tensor = b"\x08" + bytes([kind]) + _part(2, _many(1, *dimensions))
    return _text(1, name) + _part(2, _part(1, tensor))


def write_model(
    folder: Path,
    onnx: str | bytes = EMBEDDER,
    file: str = "model.onnx",
    pooling: str | None = "mean_tokens",
) -> Path:
    """Write the folder of a model that knows the words w7 to w31, and takes up to `LIMIT` of them
    with its signs."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(
        onnx if isinstance(onnx, bytes) else zlib.decompress(base64.b64decode(onnx))
    )
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    signs = [
        {
            "id": n,
            "content": WORDS[n],
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for n in range(5)
    ]
    one = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    special = {
        name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]}
        for name in ("[CLS]", "[SEP]")
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": signs,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "decoder": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": one,
            "special_tokens": special,
            "pair": [*one, {"Sequence": {"id": "B", "type_id": 1}}],
        },
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    files = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"model_max_length": LIMIT, "pad_token": "[PAD]"},
        "config.json": {"pad_token_id": 0},
    }
    if pooling:
        files["1_Pooling/config.json"] = {
            "word_embedding_dimension": 8,
            f"pooling_mode_{pooling}": True,
        }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder
