"""Contexts for chunks: a generating model says of each chunk where it stands in its document.

chunker   the chunker that adds contexts to the chunks of another
writer    takes contexts from the cache, or requests them
requests  requests many contexts at once, over several hosts
prompt    the question for one chunk: document and chunk as data in a frame
answer    extracts the context from a model's answer
cache     contexts that were written before
pruning   deletes those that nobody needs any longer
service   the servers and their model, and everything that decides the contexts

This package imports none of them: the cache is pruned by runs that have no contexts, and the others take a while.
"""

from __future__ import annotations
