"""What the source, the ledger and the caches share about SQLAlchemy: URLs, pragmas, upserts, deferred interrupts."""
