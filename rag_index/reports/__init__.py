"""What a run reports: progress, metrics, advice, outcome."""
