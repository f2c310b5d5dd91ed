"""Keys and values of a collection's metadata that several rooms read or write."""

from __future__ import annotations

BM25 = "bm25"
"""Key for the model that made the sparse vectors; a collection without them does not have it."""
CALIBRATION = "calibration"
"""Key for the weights of the calibrated score; a collection that has not learned any does not have it."""
UNLEARNED = "documents"
"""Stands there instead of weights if nothing could be learned: how many documents the collection had."""
BULK = "indexing_threshold"
"""Key for what a server's `indexing_threshold` was before a run turned it off to load the collection; else missing."""
MAKER_KEYS = ("embedder_fingerprint", "chunking")
"""Keys that identify what made the vectors and the chunks; the ledger has columns of the same names."""
UNKNOWN = "unknown"
"""Value of a maker key if neither ledger nor store knows the maker, or if they disagree."""
NAME = "name"
"""Key for the collection's own name, for whoever may read it by its alias alone."""
LEFT = "rolled_back"
"""Key that is true if a rollback has left this collection for an older one; else missing."""
MOVED_TO = "moved_to"
"""Key in the metadata of a collection that was moved: the location of the store that holds it now."""
MOVED_ID = "moved_store_id"
"""Key for the `store_id` that a collection had before it was moved, or will get when the move is complete."""
