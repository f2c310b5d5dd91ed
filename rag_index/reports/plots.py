"""Figures as PNG files. They need the extra `plots` (matplotlib)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

_NOT_WRITTEN = "the plot cannot be written to {path}: {reason}; name another file with --plot"


def require_plots(path: Path) -> None:
    """Raise SettingsError if matplotlib is missing or the file cannot be written. To be called before the work."""
    if find_spec("matplotlib") is None:
        raise SettingsError("a plot needs matplotlib, which is not installed: pip install 'rag-index[plots]'")
    try:
        path.open("ab").close()
    except OSError as exc:
        raise SettingsError(_NOT_WRITTEN.format(path=path, reason=exc.strerror)) from exc


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as PNG. Raises SettingsError if the file cannot be written."""
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as exc:
        raise SettingsError(_NOT_WRITTEN.format(path=path, reason=exc.strerror)) from exc
