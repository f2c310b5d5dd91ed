"""Documents and the forms derived from them: batches, keys, canonical payloads, point ids, checks of vectors."""

INDEX_VERSION = 2
"""The version of all that makes an index out of a source. Raise it once for a release in which anything decides texts,
hashes, chunks, words or vectors in another way: every index must then be rebuilt."""
INDEX_CHANGES = (
    "this one reads more of mails, files and other charsets, and puts the prompts of more models before texts"
)
"""What this version does that the one before did not. A user who has to rebuild reads it."""
