"""A published collection as an asset of Prefect, so that lineage shows it and other deployments can wait for it."""

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
    named = AssetProperties(name=index.name, description=f"The search index {index.name} of {settings.project}.")
    return Asset(key=_key("qdrant", settings.alias(index.name)), properties=named)


def source_asset(settings: Settings, index: IndexSettings) -> Asset:
    """Return what an index is made of. A table has the key that dbt's runs in Prefect give it, so that both meet:
    `postgres://DATABASE/SCHEMA/TABLE`. A query stands for its database."""
    if index.kind != SQL:
        return Asset(key=_key("file", str(settings.root(index))) if index.root else _key(index.kind, index.name))
    url = settings.source_url
    scheme = url.get_backend_name()
    schema = index.db_schema or ("public" if scheme == "postgresql" else "")
    database = Path(url.database or "memory").name if scheme == "sqlite" else url.database or ""
    adapter = scheme.replace("postgresql", "postgres")  # as dbt calls it
    return Asset(key=_key(adapter, database, *([schema, index.table] if index.table else [])))


def note_published(opened: Opened, target: Target, record: RunRecord) -> None:
    """Give the asset that this task makes its figures. What the gate or a guard held back is not made anew."""
    made, outcome, live = AssetContext.get(), record.outcome, opened.live
    if made is None:
        return
    if target.rebuild and (live is None or live.name != target.collection.name):
        made.downstream_assets.clear()
    reached = opened.ledger.reached().get(opened.alias)
    for asset in made.downstream_assets:
        made.add_asset_metadata(
            asset.key,
            {
                "collection": target.collection.name, "documents": outcome.documents, "new": outcome.new,
                "changed": outcome.changed, "deleted": outcome.deleted, "failed": outcome.failed,
                "as_of": dt.datetime.fromtimestamp(reached.at, dt.UTC).isoformat() if reached else None,
            },
        )  # fmt: skip


def _key(scheme: str, *parts: str | None) -> str:
    return f"{scheme}://" + "/".join(re.sub(r"[^\w./:~-]", "_", part).strip("/") for part in parts if part)
