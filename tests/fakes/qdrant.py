"""A fake Qdrant server on loopback, REST only: real HTTP before `QdrantClient(":memory:")`, with
faults to dial in.

It answers the calls that ServerStore makes, with the JSON and the statuses of Qdrant's own REST
API.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python
from qdrant_client import QdrantClient, models

from tests.fakes.qdrant_rules import forbidden, strict_mode_refusal

POISON = "poison"
"""A point whose payload has a value under this key makes the server refuse the whole request with
400."""
DISK_FULL = (
    "Service internal error: No space left on device: WAL buffer size exceeds available disk space"
)
IN_PARAMS = ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload")
NAME = "/collections/([^/]+)"


@dataclass
class Fault:
    """A fault in the next `times` requests (in all if that is None) whose "METHOD path" contains
    `on`, and whose body `marker`.

    `status`: answer this instead of making the call, with `error` and `headers`; with `page`, the
    error is the whole answer, as a proxy gives it; with `echo`, all texts of the body follow it.
    `hang`: wait so many seconds first. `together`: wait until this many requests have met the
    fault. `cut`: make the call, then reset the connection during the answer. `garbage`: make the
    call, then answer something that is not JSON. `update_status`: make the call, and report this
    status in the answer. `code`: the status code of gRPC, see qdrant_grpc.
    """

    on: str = ""
    marker: str = ""
    times: int | None = 1
    status: int = 0
    error: str = ""
    echo: bool = False
    page: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    together: int = 0
    met: int = 0
    crowded: threading.Event = field(default_factory=threading.Event)
    cut: bool = False
    garbage: bool = False
    update_status: str = ""
    code: Any = None


class FakeQdrant:
    """A fake server at `url`, used as a context manager; `stop` and `start` keep the port and the
    points."""

    version = "1.20.0"

    def __init__(self, *, port: int = 0) -> None:
        self.client = QdrantClient(":memory:")
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.bodies: list[int] = []
        self.indexes: dict[str, dict[str, str]] = {}
        self.index_params: dict[tuple[str, str], dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        """What was set with PUT or PATCH, by collection: the parts of `config` that differ from the
        defaults."""
        self.quantizations: dict[str, Any] = {}
        self.threshold = 10_000
        """Kilobytes of vectors from which the server builds a search index, unless a collection
        says otherwise."""
        self.indexed: dict[str, int] = {}
        """How many points the search index has, by collection. Each look at a collection builds
        some of the rest."""
        self.stuck = False
        """The server builds no search index, and stays yellow."""
        self.asleep = False
        """The server was restarted: it is grey, and builds nothing until the optimizers of a
        collection are changed."""
        self.early_green = 0
        """How often a look at a collection is answered with green before the server has begun to
        build."""
        self.searches: list[Any] = []
        """The parameters of all searches."""
        self.read_only = False
        """The API key may only read."""
        self.readable: set[str] | None = None
        """The collections and aliases that the API key may read; None if it may read all."""
        self.lock = threading.Lock()
        self.ending = threading.Event()
        self._server: _Server | None = None
        self._port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> FakeQdrant:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.ending.clear()
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.fake = self
        self._port = self._server.server_port
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        self.ending.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            for connection in list(self._server.connections):  # as the end of a process does
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._server = None

    def break_next(self, on: str = "", **what: Any) -> Fault:
        fault = Fault(on, **what)
        self.faults.append(fault)
        return fault

    def requests(self, on: str) -> int:
        """Return how many requests had this in their "METHOD path"."""
        return sum(on in request for request in self.seen)

    def resolve(self, name: str) -> str:
        """Return the collection that a name or an alias stands for."""
        return {
            alias.alias_name: alias.collection_name for alias in self.client.get_aliases().aliases
        }.get(name, name)

    def take_fault(self, request: str, body: bytes = b"") -> Fault:
        with self.lock:
            for fault in self.faults:
                if fault.on in request and fault.marker.encode() in body and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    fault.met += 1
                    if fault.met >= fault.together:
                        fault.crowded.set()
                    return fault
        return Fault()


class Refused(Exception):
    """A refused request, answered with this status and Qdrant's error text."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(status, error)
        self.status, self.error = status, error


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True
    fake: FakeQdrant

    def __init__(self, *given: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*given)

    def handle_error(self, *_: object) -> None:
        """Ignore clients that went away."""

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)


def texts_of(body: Any) -> str:
    """Return all texts in a request, one after the other, the longest first."""
    if isinstance(body, str):
        return body
    inner = body.values() if isinstance(body, dict) else body if isinstance(body, list) else []
    return " ".join(sorted(filter(None, map(texts_of, inner)), key=len, reverse=True))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        fake = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        fake.seen.append(request)
        fake.bodies.append(len(body))
        fault = fake.take_fault(request, body)
        if fault.hang:
            fake.ending.wait(fault.hang)
        if fault.together:
            fault.crowded.wait(120)
        if fault.page:
            return self._send(fault.status, fault.error.encode())
        if fault.status and fault.echo:
            quoted = {
                "status": {"error": f"{fault.error} {texts_of(json.loads(body))}"},
                "time": 0.0,
            }
            return self._answer(fault.status, quoted, fault.headers)
        if fault.status:
            return self._answer(
                fault.status, {"status": {"error": fault.error}, "time": 0.0}, fault.headers
            )
        try:
            with fake.lock:
                result = answer(fake, self.command, path, json.loads(body) if body else None)
        except Refused as exc:
            return self._answer(exc.status, {"status": {"error": exc.error}, "time": 0.0})
        status = fault.update_status or (
            "completed" if "wait=true" in urlsplit(self.path).query else "acknowledged"
        )
        for one in result if isinstance(result, list) else [result]:
            if isinstance(one, dict) and one.get("status") == "completed":
                one["status"] = status
        if fault.cut:
            return self._cut()
        if fault.garbage:
            return self._send(200, b"<html>welcome to the proxy</html>")
        if path == "/":
            return self._answer(200, result)
        return self._answer(200, {"result": result, "status": "ok", "time": 0.0})

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    def _answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(document).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _cut(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"result": {')
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def answer(fake: FakeQdrant, method: str, path: str, body: Any) -> Any:
    """Return the `result` of a call as JSON values."""
    _check_rules(fake, method, path, body)
    for known, pattern, call in ROUTES:
        match = re.fullmatch(pattern, path)
        if known == method and match:
            try:
                return to_jsonable_python(call(fake, *match.groups(), body), by_alias=True)
            except ValidationError as exc:
                raise Refused(400, f"Format error in JSON body: {exc.errors()[0]['msg']}") from exc
            except KeyError as exc:
                raise Refused(404, f"Not found: No point with id {exc.args[0]} found") from exc
            except ValueError as exc:
                missing = re.fullmatch(r"Collection (.*) not found", str(exc))
                if missing:
                    raise Refused(
                        404, f"Not found: Collection `{missing[1]}` doesn't exist!"
                    ) from exc
                raise Refused(400, f"Wrong input: {exc}") from exc
    raise Refused(404, "")


def _check_rules(fake: FakeQdrant, method: str, path: str, body: Any) -> None:
    if reason := forbidden(method, path, read_only=fake.read_only, readable=fake.readable):
        raise Refused(403, reason)
    if found := re.fullmatch(rf"{NAME}(/points.*)", path):
        name = fake.resolve(found[1])
        strict = fake.configs.get(name, {}).get("strict_mode_config", {})
        reason = strict_mode_refusal(
            strict, fake.indexes.get(name, {}), f"{method} {found[2]}", body
        )
        if reason:
            raise Refused(429 if "rate limit" in reason else 400, reason)


def _collection(fake: FakeQdrant, name: str, _: Any) -> Any:
    info = to_jsonable_python(fake.client.get_collection(name))
    name = fake.resolve(name)
    schema = {
        field: {"data_type": kind, "params": fake.index_params.get((name, field)), "points": 0}
        for field, kind in fake.indexes.get(name, {}).items()
    }
    defaults = {
        "optimizer_config": {"indexing_threshold": fake.threshold},
        "params": {"on_disk_payload": True},
    }
    config = _merged(_merged(info["config"], defaults), fake.configs.get(name, {}))
    info |= {"config": config, "payload_schema": schema}
    info["config"]["quantization_config"] = fake.quantizations.get(name)
    return info | _optimize(fake, name, info)


def _optimize(fake: FakeQdrant, name: str, info: Any) -> Any:
    """Build a part of the search index, as Qdrant's optimizer does; return status and number of
    indexed vectors."""
    points, size = info["points_count"], info["config"]["params"]["vectors"].get("size", 0)
    threshold, done = (
        info["config"]["optimizer_config"]["indexing_threshold"],
        fake.indexed.get(name, 0),
    )
    due = threshold > 0 and (points - done) * size * 4 > threshold * 1024
    early, fake.early_green = fake.early_green > 0, max(0, fake.early_green - 1)
    if due and not (fake.stuck or fake.asleep or early):
        fake.indexed[name] = done = min(points, done + max(1, points // 3))
    sparse = 0  # Qdrant counts sparse vectors as indexed ones
    for words in info["config"]["params"]["sparse_vectors"] or {}:
        sparse += fake.client.count(
            name, models.Filter(must=[models.HasVectorCondition(has_vector=words)])
        ).count
    status = "grey" if fake.asleep else "yellow" if due and not early else "green"
    return {"status": status, "indexed_vectors_count": min(points, done) + sparse}


def _list(fake: FakeQdrant, _: Any) -> Any:
    found = fake.client.get_collections().collections
    return {
        "collections": [one for one in found if fake.readable is None or one.name in fake.readable]
    }


def _list_aliases(fake: FakeQdrant, _: Any) -> Any:
    found, readable = fake.client.get_aliases().aliases, fake.readable
    return {
        "aliases": [
            a for a in found if readable is None or {a.alias_name, a.collection_name} <= readable
        ]
    }


def _create(fake: FakeQdrant, name: str, body: Any) -> Any:
    request = models.CreateCollection.model_validate(body)
    fixed = {key: body[key] for key in IN_PARAMS if body.get(key) is not None}
    made = fake.client.create_collection(
        name,
        vectors_config=request.vectors,
        sparse_vectors_config=request.sparse_vectors,
        metadata=request.metadata,
    )
    fake.configs[name] = {"params": fixed}
    return made


def _update(fake: FakeQdrant, name: str, body: Any) -> Any:
    models.UpdateCollection.model_validate(body)
    given = {key: value for key, value in body.items() if value is not None}
    if "optimizers_config" in given:
        given["optimizer_config"] = given.pop("optimizers_config")
        fake.asleep = False
    if "vectors" in given:
        given["params"] = _merged(given.get("params", {}), {"vectors": given.pop("vectors")[""]})
    metadata, quantization = given.pop("metadata", None), given.pop("quantization_config", None)
    fake.client.get_collection(name)
    if quantization is not None:  # replaced as a whole
        fake.quantizations[name] = (
            None if quantization == models.Disabled.DISABLED else quantization
        )
    if given:
        fake.configs[name] = _merged(fake.configs.get(name, {}), given)
    return metadata is None or fake.client.update_collection(name, metadata=metadata)


def _merged(config: Any, changes: Any) -> Any:
    """Return a configuration with these changes, as Qdrant merges them: what is null stays as it
    was."""
    if not (isinstance(config, dict) and isinstance(changes, dict)):
        return changes
    given = {key: value for key, value in changes.items() if value is not None}
    return {**config, **{key: _merged(config.get(key), value) for key, value in given.items()}}


def _drop(fake: FakeQdrant, name: str, _: Any) -> Any:
    for kept in (fake.indexes, fake.configs, fake.quantizations, fake.indexed):
        kept.pop(name, None)
    return fake.client.delete_collection(name)


def _index(fake: FakeQdrant, name: str, body: Any) -> Any:
    fake.client.get_collection(name)
    field_name, schema = body["field_name"], body["field_schema"]
    if isinstance(schema, dict):
        fake.index_params[name, field_name] = schema
    fake.indexes.setdefault(name, {})[field_name] = (
        schema["type"] if isinstance(schema, dict) else schema
    )
    return _completed()


def _unindex(fake: FakeQdrant, name: str, field_name: str, _: Any) -> Any:
    fake.client.get_collection(name)
    fake.indexes.get(name, {}).pop(field_name, None)
    return _completed()


def _aliases(fake: FakeQdrant, body: Any) -> Any:
    return fake.client.update_collection_aliases(
        models.ChangeAliasesOperation.model_validate(body).actions
    )


def _upsert(fake: FakeQdrant, name: str, body: Any) -> Any:
    points = models.PointsList.model_validate(body).points
    if any(point.payload and point.payload.get(POISON) for point in points):
        raise Refused(400, "Wrong input: this point is not to my taste")
    return fake.client.upsert(name, points)


def _delete(fake: FakeQdrant, name: str, body: Any) -> Any:
    return fake.client.delete(name, TypeAdapter(models.PointsSelector).validate_python(body))


def _batch(fake: FakeQdrant, name: str, body: Any) -> Any:
    request = models.UpdateOperations.model_validate(body)
    for operation in request.operations:
        if (
            isinstance(operation, models.OverwritePayloadOperation)
            and POISON in operation.overwrite_payload.payload
        ):
            raise Refused(400, "Wrong input: this payload is not to my taste")
    return fake.client.batch_update_points(name, request.operations)


def _wanted(request: Any) -> dict[str, Any]:
    return {
        "with_payload": request.with_payload or False,
        "with_vectors": request.with_vector or False,
    }


def _retrieve(fake: FakeQdrant, name: str, body: Any) -> Any:
    request = models.PointRequest.model_validate(body)
    return fake.client.retrieve(name, request.ids, **_wanted(request))


def _scroll(fake: FakeQdrant, name: str, body: Any) -> Any:
    request = models.ScrollRequest.model_validate(body)
    given = {
        "scroll_filter": request.filter,
        "limit": request.limit or 10,
        "offset": request.offset,
    }
    points, following = fake.client.scroll(name, **given, **_wanted(request))
    return {"points": points, "next_page_offset": following}


def _facet(fake: FakeQdrant, name: str, body: Any) -> Any:
    request = models.FacetRequest(**body)
    return fake.client.facet(
        name, request.key, facet_filter=request.filter, limit=request.limit or 10
    )


def _count(fake: FakeQdrant, name: str, body: Any) -> Any:
    return fake.client.count(name, models.CountRequest.model_validate(body).filter)


def _query_batch(fake: FakeQdrant, name: str, body: Any) -> Any:
    return [
        _answer_query(fake, name, search)
        for search in models.QueryRequestBatch.model_validate(body).searches
    ]


def _answer_query(fake: FakeQdrant, name: str, request: models.QueryRequest) -> Any:
    fake.searches.append(request.params)
    expected = fake.client.get_collection(name).config.params.vectors.size
    idf = request.params and request.params.idf
    inner = [one.params and one.params.idf for one in request.prefetch or ()]
    if (idf or any(inner)) and fake.version.startswith("1.18"):
        raise Refused(400, "Format error in JSON body: unknown field `idf`")
    given = getattr(request.query, "nearest", request.query)
    if (
        isinstance(given, list) and len(given) != expected
    ):  # a server refuses this even with no points
        raise Refused(
            400, f"Wrong input: Vector dimension error: expected dim: {expected}, got {len(given)}"
        )
    how = {"using": request.using, "limit": request.limit or 10, "query_filter": request.filter}
    how["search_params"] = idf and models.SearchParams(idf=idf)
    prefetch = zip(request.prefetch or (), inner, strict=True)
    how["prefetch"] = [
        one.model_copy(update={"params": corpus and models.SearchParams(idf=corpus)})
        for one, corpus in prefetch
    ] or None
    return fake.client.query_points(name, query=request.query, **how, **_wanted(request))


def _completed() -> Any:
    return models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/", lambda fake, _: {"title": "qdrant", "version": fake.version, "commit": "0" * 40}),
    ("GET", "/collections", _list),
    ("GET", "/aliases", _list_aliases),
    ("POST", "/collections/aliases", _aliases),
    ("GET", NAME, _collection),
    (
        "GET",
        f"{NAME}/exists",
        lambda fake, name, _: {"exists": fake.client.collection_exists(name)},
    ),
    ("PUT", NAME, _create),
    ("PATCH", NAME, _update),
    ("DELETE", NAME, _drop),
    ("PUT", f"{NAME}/index", _index),
    ("DELETE", f"{NAME}/index/(.+)", _unindex),
    ("PUT", f"{NAME}/points", _upsert),
    ("POST", f"{NAME}/points", _retrieve),
    ("POST", f"{NAME}/points/delete", _delete),
    ("POST", f"{NAME}/points/batch", _batch),
    ("POST", f"{NAME}/points/scroll", _scroll),
    ("POST", f"{NAME}/points/count", _count),
    ("POST", f"{NAME}/facet", _facet),
    ("POST", f"{NAME}/points/query/batch", _query_batch),
]
