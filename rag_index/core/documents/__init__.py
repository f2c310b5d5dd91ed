"""Documents and the forms derived from them: batches, typed keys, canonical payloads, point ids,
checks of vectors.

Everything in it may change a hash, a point id or a vector. If it does, raise `INDEX_VERSION`:
`tests/core/test_canonical.py` compares hashes with stored ones.
"""

INDEX_VERSION = 4
"""The version of everything that makes an index from a source. Raise it once in a release that
changes texts, hashes, chunks, words or vectors; every index must then be rebuilt."""
INDEX_CHANGES = (
    "this one reads e-mails, office files, PDFs, HTML, JSON, RTF, source code and invalid texts in"
    " other ways, and finds words of more scripts. Until its rebuild is live, the index is searched"
    " by meaning alone and not updated"
)
"""What this version changes, and what works until the rebuild. A user who has to rebuild reads
it."""
