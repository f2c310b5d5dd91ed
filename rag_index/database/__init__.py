"""What the source, the ledger and caches share about SQLAlchemy: URLs, SQLite pragmas, deferred interrupts."""
