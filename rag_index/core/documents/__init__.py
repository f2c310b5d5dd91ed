"""Documents and the forms derived from them: batches, keys, canonical payloads, point ids, checks
of vectors."""

INDEX_VERSION = 4
"""The version of all that makes an index out of a source. Raise it once for a release in which
anything decides texts, hashes, chunks, words or vectors in another way: every index must then be
rebuilt."""
INDEX_CHANGES = (
    "this one reads e-mails, office files, PDFs, HTML, JSON, RTF, source code and invalid texts in"
    " other ways, and finds words of more scripts. Until its rebuild is live, the index is searched"
    " by meaning alone and not updated"
)
"""What this version does that the one before did not, and what works meanwhile. A user who has to
rebuild reads it."""
