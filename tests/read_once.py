"""What each process of the tests reads once, or not at all."""

import marshal
import os
import ssl
from functools import cache, partial
from pathlib import Path

import certifi
import qdrant_edge
from qdrant_client.embed import schema_parser

from rag_index.components.embedders import local


def keep_model() -> None:
    """Keep the hash of the model's files, which nothing changes."""
    local._digest = cache(local._digest)


def copy_schemas_quickly() -> None:
    """Copy the schemas of Qdrant's client, which each new client does, as what they are: plain
    dictionaries and lists. `deepcopy` takes 9 ms of processor time, and a test of a server opens
    three clients and more."""
    schema_parser.deepcopy = lambda schemas: marshal.loads(marshal.dumps(schemas))


def leave_vectors_on_disk() -> None:
    """Let the engine read a vector when it is needed. By default it reads all of them when a
    collection is opened, from a file of 32 MB, however few there are: that takes 6 ms of processor
    time, a copy of the folder another 30 ms, and the tests do both some thousand times."""
    cold = qdrant_edge.Memory.Cold
    qdrant_edge.EdgeVectorParams = partial(qdrant_edge.EdgeVectorParams, memory=cold)


def trust_one_certificate() -> None:
    """Read one of the 140 certificates of the machine for each connection: all take 20 ms, and
    tests leave it never."""
    machine, make = (
        {None, certifi.where(), os.environ.get("SSL_CERT_FILE")},
        ssl.create_default_context,
    )
    first, end, _ = (
        Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----\n")
    )

    def quick(purpose=ssl.Purpose.SERVER_AUTH, *, cafile=None, capath=None, cadata=None):
        if cafile in machine and not cadata:
            cafile, cadata = None, first + end
        return make(purpose, cafile=cafile, capath=capath, cadata=cadata)

    ssl.create_default_context = quick
