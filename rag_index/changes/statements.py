"""SQL for a person: statements with their reasons, how to remove them again, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A statement without its semicolon, and the reason for it. One of the two may be empty."""

    sql: str
    reason: str = ""

    def lines(self) -> list[str]:
        """Return both as SQL."""
        return [*([f"-- {self.reason}"] if self.reason else []), *(f"{self.sql};".splitlines() if self.sql else [])]


@dataclass(frozen=True, slots=True)
class Setup:
    """What to run so that a source tells its changes, and how to get rid of it."""

    title: str
    costs: tuple[str, ...]
    """What it costs the source and those who write to it; a sentence each."""
    steps: tuple[Step, ...]
    removal: tuple[Step, ...]

    def script(self) -> str:
        """Return all of it as SQL. The removal is commented out."""
        lines = [f"-- {self.title}", "--", "-- What it costs:"]
        lines += [f"--   {line}" for line in self.costs]
        for step in self.steps:
            lines += ["", *step.lines()]
        lines += ["", "-- To remove all of it:"]
        lines += [f"--   {line}" for step in self.removal for line in step.lines()]
        return "\n".join(lines) + "\n"
