"""What was found wrong in a data set, and what was done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

# so many examples of each finding are named
EXAMPLES = 5
# characters of an example
LONGEST = 80

ACTIONS = ("dropped", "repaired", "noted")


@dataclass
class Finding:
    """One kind of trouble: how often it was met, and the first few places."""

    what: str
    whose: str  # what the examples are, as "annotation ids"
    hint: str = ""  # what to do about it, as the key that changes it
    count: int = 0
    examples: list = field(default_factory=list)

    def __str__(self) -> str:
        names = ", ".join(map(_short, self.examples)) + (", ..." if self.count > len(self.examples) else "")
        details = [f"{self.whose} {names}".strip()] if self.examples else []
        details += [self.hint] if self.hint else []
        return f"{self.count} {self.what}" + (f" ({'; '.join(details)})" if details else "")


def _short(example) -> str:
    text = str(example)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class DatasetReport:
    """Counted findings of one data set; `str()` is the line that goes to the log.

    Args:
        name: what the data set is called in messages.

    `dropped` findings are not in the data set, `repaired` ones are, in a changed form, `noted` ones are as they
    were. `totals` (pictures, boxes, classes) is filled by the data set when it is complete.
    """

    def __init__(self, name: str):
        self.name = name
        self.totals: dict[str, int] = {}
        self._findings: dict[tuple[str, str], Finding] = {}

    def add(self, action: str, what: str, places: Sequence, whose: str = "annotation ids", hint: str = "") -> None:
        """Count `len(places)` more of `what`; nothing happens for an empty list. `hint` names the key to change it.

        Raises:
            ValueError: `action` is not "dropped", "repaired" or "noted".
        """
        if action not in ACTIONS:
            raise ValueError(f"a finding is one of {', '.join(ACTIONS)}, got {action!r}")
        if len(places) == 0:
            return
        finding = self._findings.setdefault((action, what), Finding(what, whose, hint))
        finding.count += len(places)
        finding.examples.extend(places[: EXAMPLES - len(finding.examples)])

    def count(self, what: str) -> int:
        """How many of `what` were met, whatever was done about them."""
        return sum(finding.count for (_, name), finding in self._findings.items() if name == what)

    def findings(self, action: str) -> list[Finding]:
        return [finding for (name, _), finding in self._findings.items() if name == action]

    def __str__(self) -> str:
        parts = [", ".join(f"{count:,} {what}" for what, count in self.totals.items())] if self.totals else []
        for action in ACTIONS:
            found = self.findings(action)
            if found:
                parts.append(f"{action}: " + ", ".join(map(str, found)))
        return f"{self.name}: " + "; ".join(parts)
