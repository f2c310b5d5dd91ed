"""The reports of a run: progress, metrics, advice, outcome."""
