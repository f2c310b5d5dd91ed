"""Flows: what runs, in which order. A flow file holds flows and nothing else."""
