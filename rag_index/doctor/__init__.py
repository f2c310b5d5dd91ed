"""The doctor: what is wrong between source, ledger and store, with the remedy of each finding; and mending it.

`examine` looks and changes nothing; `repair` mends by the ordinary path and looks again.
"""

from __future__ import annotations

from rag_index.doctor.checkup import examine
from rag_index.doctor.findings import Advice, Diagnosis, Finding
from rag_index.doctor.repair import repair

__all__ = ["Advice", "Diagnosis", "Finding", "examine", "repair"]
