"""A package that a page shows, laid out as pip would install it from the page's pyproject.toml."""

import tomllib
from pathlib import Path


def install_as_written(pyproject: str, site: Path, modules: dict[str, str]) -> None:
    """Write the modules that the file names, and what a distribution says of itself, into the
    folder `site`."""
    written = tomllib.loads(pyproject)
    assert written["build-system"]["build-backend"] == "setuptools.build_meta"
    assert [f"{name}.py" for name in written["tool"]["setuptools"]["py-modules"]] == [*modules]
    name, version = written["project"]["name"], written["project"]["version"]
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    for module, text in modules.items():
        (site / module).write_text(text)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    entries = written["project"]["entry-points"].items()
    lines = [
        (f"[{group}]", *(f"{one} = {of}" for one, of in names.items())) for group, names in entries
    ]
    (info / "entry_points.txt").write_text("\n".join(map("\n".join, lines)))
