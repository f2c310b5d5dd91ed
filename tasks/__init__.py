"""Tasks: each is a policy of retries around one call into rag_index."""
