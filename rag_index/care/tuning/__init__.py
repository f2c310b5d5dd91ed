"""The benchmark, and queries that are made of a column."""
