"""Evaluation of searches: golden queries, measures, the gate of a rebuild, and calibration.

The package may import `rag_index.search` and components, and not `rag_index.etl`: a run gets the
gate and the calibration from `rag_index.orchestration.hooks`, which calls them in this order.

1. `calibrate.Learner.learn`, before the gate: the gate judges searches as they will be
   (tests/search/test_calibration.py).
2. `gate.Gate.refusal`, before the alias moves (tests/etl/test_publish.py).
"""
