"""Sample databases to try rag-index on: Python's documentation, and a generated service desk of any size."""
