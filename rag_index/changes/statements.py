"""SQL for a person: statements with their reasons, how to remove them again, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Setup", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """A statement without its semicolon, and the reason for it."""

    sql: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """What to run so that a source tells its changes, and how to get rid of it."""

    title: str
    costs: tuple[str, ...]
    """What it costs the source and those who write to it; a sentence each."""
    steps: tuple[Step, ...]
    removal: tuple[str, ...]

    def script(self) -> str:
        """Return all of it as SQL. The removal is commented out."""
        lines = [f"-- {self.title}", "--", "-- What it costs:"]
        lines += [f"--   {line}" for line in self.costs]
        for step in self.steps:
            lines += ["", *([f"-- {step.reason}"] if step.reason else []), f"{step.sql};"]
        lines += ["", "-- To remove all of it:"]
        lines += [f"--   {line}" for sql in self.removal for line in f"{sql};".splitlines()]
        return "\n".join(lines) + "\n"
