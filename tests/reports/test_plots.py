"""Plots: a file that cannot be written is refused before the work."""

from __future__ import annotations

import pytest

from rag_index.errors import SettingsError
from rag_index.reports.plots import require_plots


def test_a_file_that_cannot_be_written_is_refused_before_the_benchmark(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(SettingsError, match=r"the plot cannot be written to .*: No such file or directory; name"):
        require_plots(tmp_path / "missing" / "x.png")
    require_plots(tmp_path / "x.png")
