"""The benchmark, and the search for the fastest settings."""
