"""The doctor: finds what is wrong between source, ledger and store, names a remedy for each finding, and repairs it.
`examine` changes nothing. `repair` corrects what it can, leaves the rest to an ordinary run, and examines again."""

from __future__ import annotations

from rag_index.care.doctor.checkup import examine
from rag_index.care.doctor.collection_state import Advice, Diagnosis, Finding
from rag_index.care.doctor.repair import repair

__all__ = ["Advice", "Diagnosis", "Finding", "examine", "repair"]
