"""Contexts for chunks: a generating model says of each chunk where it stands in its document.

chunker   the chunker that adds contexts to the chunks of another
writer    takes contexts from the cache, or requests them from servers, and reads the answers
prompt    the question for one chunk: document and chunk as data in a frame
cache     contexts that were written before, and the deletion of those that nobody needs any longer

This package imports none of them: the cache is pruned by runs that have no contexts, and the others take a while.
"""
