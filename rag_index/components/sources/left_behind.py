"""What earlier versions of the watch had set up in a source: a slot, a publication, queues, and triggers that fill
them. Nothing reads these any more. A slot keeps the log until the disk is full, and triggers cost each write."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.components.sources.engine import errors_as_ours, open_read_only
from rag_index.core.settings.index import SQL
from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.core.settings import Settings

MAX_NAME = 60
_POSTGRESQL = sa.text("""
    SELECT 'slot ' || slot_name, format('SELECT pg_drop_replication_slot(%L)', slot_name)
    FROM pg_replication_slots WHERE slot_name = :name AND database = current_database()
    UNION ALL SELECT 'publication ' || pubname, format('DROP PUBLICATION %I', pubname)
    FROM pg_publication WHERE pubname = :name
    UNION ALL SELECT 'the triggers of ' || proname, format('DROP FUNCTION %I.%I() CASCADE', nspname, proname)
    FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
    WHERE prorettype = 'trigger'::regtype AND strpos(prosrc, 'INSERT INTO rag_index.' || :name || ' (') > 0
    UNION ALL SELECT 'queue rag_index.' || relname, format('DROP TABLE rag_index.%I', relname)
    FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relname = :name AND nspname = 'rag_index' AND relkind = 'r'
""")
_MYSQL = sa.text("""
    SELECT CONCAT('trigger ', trigger_name),
        CONCAT('DROP TRIGGER `', trigger_schema, '`.`', REPLACE(trigger_name, '`', '``'), '`')
    FROM information_schema.triggers
    WHERE LOCATE(CONCAT('INSERT INTO `', DATABASE(), '`.', :name, ' ('), action_statement) = 1
    UNION ALL SELECT CONCAT('queue ', table_name), CONCAT('DROP TABLE ', table_name)
    FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = :name
""")
_SQLITE = sa.text("""
    SELECT 'trigger ' || name, 'DROP TRIGGER "' || replace(name, '"', '""') || '"'
    FROM sqlite_master WHERE type = 'trigger' AND instr(sql, 'INSERT INTO ' || :name || ' (')
    UNION ALL SELECT 'queue ' || name, 'DROP TABLE ' || name
    FROM sqlite_master WHERE type = 'table' AND name = :name
""")
_QUERIES = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL, "sqlite": _SQLITE}


def left_behind(settings: Settings) -> Iterator[str]:
    """Yield what is left of this project's set-up, with the SQL that removes it. Nothing if the source does not answer:
    a run says that."""
    url = settings.source_url if any(index.kind == SQL for index in settings.indexes) else None
    if url is None or (query := _QUERIES.get(url.get_backend_name())) is None:
        return
    engine = open_read_only(url)
    try:
        with errors_as_ours(url, "what an earlier watch had set up"), engine.connect() as connection:
            found = connection.execute(query, {"name": object_name(settings.project)}).all()
    except RagIndexError:
        return
    finally:
        engine.dispose()
    if found:
        names, statements = ", ".join(name for name, _ in found), " ".join(f"{sql};" for _, sql in found)
        yield (
            f"the source still has what an earlier version of the watch needed and nothing reads any more ({names}): "
            f"a slot fills the disk, and triggers slow each write. The owner removes it with: {statements}"
        )


def object_name(project: str) -> str:
    """Return the name of what a project had set up, of lower-case letters, digits and `_`."""
    whole = f"rag_index_{project}"
    name = re.sub(r"[^a-z0-9]+", "_", whole.lower())
    if name == whole and len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9].rstrip('_')}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"
