"""The embedded store: Qdrant inside this process, in a folder that one process writes and any
number search."""
