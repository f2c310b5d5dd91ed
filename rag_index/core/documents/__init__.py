"""Documents and the forms derived from them: batches, keys, canonical payloads, point ids, checks of vectors."""

INDEX_VERSION = 3
"""The version of all that makes an index out of a source. Raise it once for a release in which anything decides texts,
hashes, chunks, words or vectors in another way: every index must then be rebuilt."""
INDEX_CHANGES = "this one reads office files, PDFs, HTML, JSON, RTF and source code in other ways"
"""What this version does that the one before did not. A user who has to rebuild reads it."""
