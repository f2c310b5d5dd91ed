"""Documents and the forms derived from them: batches, keys, canonical payloads, point ids, checks of vectors."""
