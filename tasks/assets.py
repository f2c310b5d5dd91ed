"""A published collection as an asset of Prefect.

Prefect shows the asset with its source, and other deployments can wait for it.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext

from rag_index.core.settings.index import SQL

if TYPE_CHECKING:
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import Settings
    from rag_index.core.settings.index import IndexSettings
    from rag_index.etl.collection import Target
    from rag_index.etl.opened import Opened


def collection_asset(settings: Settings, index: IndexSettings) -> Asset:
    """Return the asset of an index: `qdrant://ALIAS`."""
    key = _key("qdrant", settings.alias(index.name))
    description = f"The search index {index.name} of {settings.project}."
    return Asset(key=key, properties=AssetProperties(name=index.name, description=description))


def source_asset(settings: Settings, index: IndexSettings) -> Asset:
    """Return the asset that an index is made of.

    A table has the key that dbt's runs in Prefect give it, so that both are one asset:
    `postgres://DATABASE/SCHEMA/TABLE`.
    """
    if index.kind != SQL and index.root:
        # A folder: "file://srv/handbook".
        folder = settings.root(index)
        return Asset(key=_key("file", str(folder)))
    if index.kind != SQL:
        # Another source: "files://handbook", its kind and the name of the index.
        return Asset(key=_key(index.kind, index.name))
    url = settings.source_url
    scheme = url.get_backend_name()
    database = url.database or ""
    schema = index.db_schema or ""
    if scheme == "sqlite":
        # The file without its folders: "sqlite://source.db/note".
        database = Path(database or "memory").name
    elif scheme == "postgresql":
        # dbt's name of the adapter, and the default schema: "postgres://desk/public/ticket".
        scheme = "postgres"
        schema = schema or "public"
    # A query has no table, and stands for its database: "postgres://desk".
    table = [schema, index.table] if index.table else []
    return Asset(key=_key(scheme, database, *table))


def note_published(opened: Opened, target: Target, record: RunRecord) -> None:
    """Add the metrics of a run to the asset that the present task makes."""
    context = AssetContext.get()
    live = opened.live
    if context is None:
        return
    if target.rebuild and (live is None or live.name != target.collection.name):
        # The gate or a guard held the rebuilt collection back, so this task makes no asset.
        context.downstream_assets.clear()
    reached = opened.ledger.reached().get(opened.alias)
    as_of = dt.datetime.fromtimestamp(reached.at, dt.UTC).isoformat() if reached else None
    outcome = record.outcome
    metrics = {
        "collection": target.collection.name,
        "documents": outcome.documents,
        "new": outcome.new,
        "changed": outcome.changed,
        "deleted": outcome.deleted,
        "failed": outcome.failed,
        "as_of": as_of,
    }
    for asset in context.downstream_assets:
        context.add_asset_metadata(asset.key, metrics)


def _key(scheme: str, *parts: str | None) -> str:
    """Return a key as Prefect allows it, such as "qdrant://desk_tickets" for "desk tickets"."""
    path: list[str] = []
    for part in parts:
        # A schema is empty for databases that have none.
        if part:
            allowed = re.sub(r"[^\w./:~-]", "_", part)
            path.append(allowed.strip("/"))
    return f"{scheme}://{'/'.join(path)}"
