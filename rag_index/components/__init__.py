"""What a run and a search both open: sources, chunkers, embedders, their hosts, stores and the
ledger."""
