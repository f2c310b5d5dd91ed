"""Move, copy and export indexes."""
