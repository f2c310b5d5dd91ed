"""The gRPC side of the fake Qdrant server: real gRPC on loopback, with the same points and faults.

Faults are dialled in on the FakeQdrant: there `on` is "GRPC Upsert" and the like, and `code` is the
status answered.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from qdrant_client import grpc as proto
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from tests.fakes.qdrant import IN_PARAMS, FakeQdrant, Refused, answer

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
DIFFS: dict[str, Callable[[Any], Any]] = {
    "optimizers_config": GrpcToRest.convert_optimizers_config_diff,
    "hnsw_config": GrpcToRest.convert_hnsw_config_diff,
    "quantization_config": GrpcToRest.convert_quantization_config_diff,
    "strict_mode_config": GrpcToRest.convert_strict_mode_config,
    "params": GrpcToRest.convert_collection_params_diff,
}
KINDS = {
    proto.FieldType.FieldTypeKeyword: "keyword",
    proto.FieldType.FieldTypeInteger: "integer",
    proto.FieldType.FieldTypeFloat: "float",
    proto.FieldType.FieldTypeBool: "bool",
    proto.FieldType.FieldTypeDatetime: "datetime",
}


class FakeQdrantGrpc:
    """A gRPC server at `port` in front of a FakeQdrant, used as a context manager."""

    def __init__(self, fake: FakeQdrant, *, port: int = 0) -> None:
        self.fake = fake
        self.port = port
        self.keys: list[str | None] = []
        """The API key that came with each request."""

    def __enter__(self) -> FakeQdrantGrpc:
        self._server = grpc.server(
            ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)]
        )
        for kind in ("Points", "Collections", "Qdrant"):
            services = self._services(getattr(proto, f"{kind}Servicer"))
            getattr(proto, f"add_{kind}Servicer_to_server")(services, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=None).wait()

    def _services(self, servicer: type) -> Any:
        service = servicer()
        for name, call in CALLS.items():
            if hasattr(servicer, name):
                setattr(service, name, self._handler(name, call))
        return service

    def _handler(
        self, name: str, call: Callable[[FakeQdrant, Any], Any]
    ) -> Callable[[Any, grpc.ServicerContext], Any]:
        def serve(request: Any, context: grpc.ServicerContext) -> Any:
            fake = self.fake
            fake.seen.append(f"GRPC {name}")
            fake.bodies.append(request.ByteSize())
            self.keys.append(dict(context.invocation_metadata()).get("api-key"))
            fault = fake.take_fault(f"GRPC {name}")
            if fault.hang:
                fake.ending.wait(fault.hang)
            if fault.code is not None:
                context.set_trailing_metadata(
                    [(key.lower(), value) for key, value in fault.headers.items()]
                )
                context.abort(fault.code, fault.error)
            try:
                with fake.lock:
                    result = call(fake, request)
            except Refused as exc:
                context.abort(CODES[exc.status], exc.error)
            if fault.update_status:
                result.result.status = proto.UpdateStatus.Acknowledged
            return result

        return serve


def _json(model: Any, **how: Any) -> Any:
    return model.model_dump(mode="json", **how)


def _given(model: Any) -> Any:
    return _json(model, exclude_none=True)


def _ask(fake: FakeQdrant, method: str, request: Any, path: str = "", body: Any = None) -> Any:
    """Ask the fake over REST for something of the collection that the request names."""
    return answer(fake, method, f"/collections/{request.collection_name}{path}", body)


def _done(request: Any) -> Any:
    """Return that a write is complete, or only accepted if the request does not wait for it."""
    status = models.UpdateStatus.COMPLETED if request.wait else models.UpdateStatus.ACKNOWLEDGED
    result = models.UpdateResult(operation_id=0, status=status)
    return proto.PointsOperationResponse(result=RestToGrpc.convert_update_result(result))


def _changed(result: Any) -> Any:
    return proto.CollectionOperationResponse(result=result, time=0.0)


def _filter(request: Any) -> Any:
    return _json(GrpcToRest.convert_filter(request.filter)) if request.HasField("filter") else None


def _create(fake: FakeQdrant, request: Any) -> Any:
    sparse = GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config)
    body = {
        "vectors": _json(GrpcToRest.convert_vectors_config(request.vectors_config)),
        "sparse_vectors": {name: _json(one) for name, one in sparse.items()} or None,
        "metadata": GrpcToRest.convert_payload(request.metadata),
    }
    body |= {field: getattr(request, field) for field in IN_PARAMS if request.HasField(field)}
    return _changed(_ask(fake, "PUT", request, body=body))


def _get(fake: FakeQdrant, request: Any) -> Any:
    """Answer Get, which both services have; the type of the request tells them apart."""
    if isinstance(request, proto.GetPoints):
        return _retrieve(fake, request)
    info = models.CollectionInfo.model_validate(_ask(fake, "GET", request))
    return proto.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))


def _update(fake: FakeQdrant, request: Any) -> Any:
    body: dict[str, Any] = {
        "metadata": GrpcToRest.convert_payload(request.metadata) if request.metadata else None
    }
    for field, convert in DIFFS.items():
        if request.HasField(field):
            found = convert(getattr(request, field))
            body[field] = found.value if found == models.Disabled.DISABLED else _given(found)
    if request.HasField("vectors_config"):
        body["vectors"] = {
            "": _given(GrpcToRest.convert_vector_params_diff(request.vectors_config.params))
        }
    return _changed(_ask(fake, "PATCH", request, body=body))


def _delete(fake: FakeQdrant, request: Any) -> Any:
    """Answer Delete, which both services have."""
    if not isinstance(request, proto.DeletePoints):
        return _changed(_ask(fake, "DELETE", request))
    selector = GrpcToRest.convert_points_selector(request.points)
    _ask(fake, "POST", request, "/points/delete", _json(selector))
    return _done(request)


def _aliases(fake: FakeQdrant, request: Any) -> Any:
    actions = [_json(GrpcToRest.convert_alias_operations(action)) for action in request.actions]
    return _changed(answer(fake, "POST", "/collections/aliases", {"actions": actions}))


def _index(fake: FakeQdrant, request: Any) -> Any:
    schema: Any = KINDS[request.field_type]
    if request.HasField("field_index_params"):
        schema = _given(GrpcToRest.convert_payload_schema_params(request.field_index_params))
    _ask(fake, "PUT", request, "/index", {"field_name": request.field_name, "field_schema": schema})
    return _done(request)


def _remove_index(fake: FakeQdrant, request: Any) -> Any:
    _ask(fake, "DELETE", request, f"/index/{request.field_name}")
    return _done(request)


def _list(fake: FakeQdrant, _: Any) -> Any:
    found = answer(fake, "GET", "/collections", None)["collections"]
    return proto.ListCollectionsResponse(
        collections=[proto.CollectionDescription(name=one["name"]) for one in found]
    )


def _list_aliases(fake: FakeQdrant, _: Any) -> Any:
    found = answer(fake, "GET", "/aliases", None)["aliases"]
    return proto.ListAliasesResponse(aliases=[proto.AliasDescription(**alias) for alias in found])


def _upsert(fake: FakeQdrant, request: Any) -> Any:
    points = [_json(GrpcToRest.convert_point_struct(point)) for point in request.points]
    _ask(fake, "PUT", request, "/points", {"points": points})
    return _done(request)


def _batch(fake: FakeQdrant, request: Any) -> Any:
    operations = []
    for operation in request.operations:
        payload = GrpcToRest.convert_payload(operation.overwrite_payload.payload)
        selector = GrpcToRest.convert_points_selector(operation.overwrite_payload.points_selector)
        operations.append({"overwrite_payload": {"payload": payload, **_json(selector)}})
    _ask(fake, "POST", request, "/points/batch", {"operations": operations})
    return proto.UpdateBatchResponse(result=[_done(request).result] * len(operations))


def _records(found: Any) -> list[Any]:
    filled = [
        models.Record.model_validate(record | {"payload": record["payload"] or {}})
        for record in found
    ]
    return [RestToGrpc.convert_record(record) for record in filled]


def _wanted(request: Any) -> dict[str, bool]:
    return {"with_payload": request.with_payload.enable, "with_vector": request.with_vectors.enable}


def _retrieve(fake: FakeQdrant, request: Any) -> Any:
    body = {
        "ids": [GrpcToRest.convert_point_id(point_id) for point_id in request.ids],
        **_wanted(request),
    }
    return proto.GetResponse(result=_records(_ask(fake, "POST", request, "/points", body)))


def _scroll(fake: FakeQdrant, request: Any) -> Any:
    body = {
        "limit": request.limit,
        "filter": _filter(request),
        "offset": GrpcToRest.convert_point_id(request.offset)
        if request.HasField("offset")
        else None,
        **_wanted(request),
    }
    found = _ask(fake, "POST", request, "/points/scroll", body)
    following = found["next_page_offset"]
    return proto.ScrollResponse(
        result=_records(found["points"]),
        next_page_offset=None
        if following is None
        else RestToGrpc.convert_extended_point_id(following),
    )


def _facet(fake: FakeQdrant, request: Any) -> Any:
    body = {"key": request.key, "limit": request.limit, "filter": _filter(request)}
    hits = _ask(fake, "POST", request, "/facet", body)["hits"]
    values = [(proto.FacetValue(string_value=hit["value"]), hit["count"]) for hit in hits]
    return proto.FacetResponse(
        hits=[proto.FacetHit(value=value, count=count) for value, count in values]
    )


def _count(fake: FakeQdrant, request: Any) -> Any:
    found = _ask(
        fake, "POST", request, "/points/count", {"filter": _filter(request), "exact": request.exact}
    )
    return proto.CountResponse(result=proto.CountResult(count=found["count"]))


def _query_batch(fake: FakeQdrant, request: Any) -> Any:
    body = {"searches": [_query_body(one) for one in request.query_points]}
    found = _ask(fake, "POST", request, "/points/query/batch", body)
    return proto.QueryBatchResponse(
        result=[proto.BatchResult(result=_scored_points(one)) for one in found]
    )


def _query_body(request: Any) -> dict[str, Any]:
    nearest = request.query.nearest
    if nearest.HasField("sparse"):
        query: Any = {
            "indices": list(nearest.sparse.indices),
            "values": list(nearest.sparse.values),
        }
    else:
        query = list(nearest.dense.data)
    return {
        "query": query,
        "using": request.using or None,
        "limit": request.limit,
        "filter": _filter(request),
        "params": _json(GrpcToRest.convert_search_params(request.params)),
        "with_payload": request.with_payload.enable,
        "with_vector": list(request.with_vectors.include.names),
        "prefetch": [_json(GrpcToRest.convert_prefetch_query(one)) for one in request.prefetch]
        or None,
    }


def _scored_points(found: Any) -> list[Any]:
    filled = [
        models.ScoredPoint.model_validate(one | {"payload": one["payload"] or {}})
        for one in found["points"]
    ]
    return [RestToGrpc.convert_scored_point(point) for point in filled]


CALLS: dict[str, Callable[[FakeQdrant, Any], Any]] = {
    "Get": _get,
    "Delete": _delete,
    "HealthCheck": lambda fake, _: proto.HealthCheckReply(**answer(fake, "GET", "/", None)),
    "List": _list,
    "CollectionExists": lambda fake, request: proto.CollectionExistsResponse(
        result=proto.CollectionExists(**_ask(fake, "GET", request, "/exists"))
    ),
    "ListAliases": _list_aliases,
    "Create": _create,
    "Update": _update,
    "UpdateAliases": _aliases,
    "CreateFieldIndex": _index,
    "DeleteFieldIndex": _remove_index,
    "Upsert": _upsert,
    "UpdateBatch": _batch,
    "Scroll": _scroll,
    "Count": _count,
    "Facet": _facet,
    "QueryBatch": _query_batch,
}
