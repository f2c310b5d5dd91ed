"""Tasks: one policy a file (retries, time limits, health checks) around one call into rag_index."""
