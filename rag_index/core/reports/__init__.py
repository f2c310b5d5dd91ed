"""The reports of a run: progress, metrics with advice, outcome."""
