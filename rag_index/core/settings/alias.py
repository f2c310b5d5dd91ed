"""The alias of an index, which knows whose it is."""

from __future__ import annotations


class Alias(str):
    """The alias that readers search: the names of a project and of its index, joined by `_`. Two pairs of names may
    make one alias (`desk` + `it_notes`, `desk_it` + `notes`), so it also has the pair, as `owner`."""

    owner: dict[str, str]

    def __new__(cls, project: str, index: str) -> Alias:
        """Return the alias of an index of a project."""
        alias = super().__new__(cls, f"{project}_{index}")
        alias.owner = {"project": project, "index": index}
        return alias

    def __reduce__(self) -> tuple[type[Alias], tuple[str, ...]]:
        return Alias, tuple(self.owner.values())
