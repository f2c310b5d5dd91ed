"""The embedded store: Qdrant inside this process."""
