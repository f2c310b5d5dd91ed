"""The doctor: finds what is wrong between source, ledger and store, and names a remedy for each finding. `examine`
changes nothing. `repair` corrects what it finds, and leaves the rest to an ordinary run."""

from __future__ import annotations

from rag_index.care.doctor.checkup import examine, repair
from rag_index.care.doctor.collection_state import Advice, Diagnosis, Finding

__all__ = ["Advice", "Diagnosis", "Finding", "examine", "repair"]
