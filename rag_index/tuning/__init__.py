"""Benchmark and search for the fastest settings."""
