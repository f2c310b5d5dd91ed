"""One run of one index: scan, diff, shards, embedding, commit, deletes, publishing."""
