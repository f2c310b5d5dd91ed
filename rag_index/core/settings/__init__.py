"""Settings: one TOML file, overridden by RAG_INDEX_* variables, in one model that is passed
down."""

from __future__ import annotations

from rag_index.core.settings.index import IndexSettings
from rag_index.core.settings.project import (
    CONFIG_VARIABLE,
    ENV_PREFIX,
    FILE_NAME,
    SECTIONS,
    Alias,
    Settings,
    find_config,
    load_settings,
    origins,
    run_settings,
)
from rag_index.core.settings.sections import (
    ContextSettings,
    EmbedderSettings,
    GateSettings,
    LedgerSettings,
    ParallelSettings,
    RetrieveSettings,
    RunSettings,
    ServerSettings,
    ServeSettings,
    SourceSettings,
    StoreSettings,
)

__all__ = [
    "Alias",
    "CONFIG_VARIABLE",
    "ContextSettings",
    "EmbedderSettings",
    "ENV_PREFIX",
    "FILE_NAME",
    "find_config",
    "GateSettings",
    "IndexSettings",
    "LedgerSettings",
    "load_settings",
    "origins",
    "ParallelSettings",
    "RetrieveSettings",
    "run_settings",
    "RunSettings",
    "SECTIONS",
    "ServerSettings",
    "ServeSettings",
    "Settings",
    "SourceSettings",
    "StoreSettings",
]
