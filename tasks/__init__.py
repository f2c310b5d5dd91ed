"""Tasks: each is a policy (retries, time limits, health checks) around one call into rag_index."""
