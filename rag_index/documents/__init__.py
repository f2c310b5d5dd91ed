"""Documents and what is derived from them: batches, keys, canonical form, point ids, vectors."""
