"""Count and report the problems found in a dataset."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

from maskrcnn_benchmark.utils.counted import counted

logger = logging.getLogger(__name__)

# Maximum number of examples named per finding, and whether reports keep all of them nevertheless.
EXAMPLES = 5
_keeps_all = contextvars.ContextVar("keeps_all", default=False)
# Maximum length of an example, in characters.
LONGEST = 80

ACTIONS = ("dropped", "repaired", "noted")


@contextlib.contextmanager
def all_examples() -> Iterator[None]:
    """Make reports keep every affected entry within the block, instead of the first few. Their text stays short."""
    token = _keeps_all.set(True)
    try:
        yield
    finally:
        _keeps_all.reset(token)


@dataclass
class Finding:
    """One kind of problem: its count and the first few examples."""

    what: str
    whose: str  # kind of the examples, such as "annotation ids"
    hint: str = ""  # remedy, such as the config key to change
    count: int = 0
    examples: list = field(default_factory=list)

    def __str__(self) -> str:
        shown = self.examples[:EXAMPLES]
        names = ", ".join(map(shorten, shown)) + (", ..." if self.count > len(shown) else "")
        details = [f"{self.whose} {names}".strip()] if self.examples else []
        details += [self.hint] if self.hint else []
        return counted(self.count, self.what) + (f" ({'; '.join(details)})" if details else "")


def shorten(example) -> str:
    """Return an example as text of at most LONGEST characters, and "..." if it is longer."""
    text = str(example)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


class DatasetReport:
    """Counted findings of one dataset. `str()` returns the line for the log.

    Args:
        name: name of the dataset in messages.

    "dropped" entries are not in the dataset, "repaired" ones are in it in changed form, and "noted" ones are in it
    unchanged. The dataset fills `totals` (images, boxes, classes) when it is complete.
    """

    def __init__(self, name: str):
        self.name = name
        self.totals: dict[str, int] = {}
        self.warnings: list[str] = []
        self._findings: dict[tuple[str, str], Finding] = {}

    def add(self, action: str, what: str, places: Sequence, whose: str = "annotation ids", hint: str = "") -> None:
        """Add `len(places)` to the count of a finding; an empty list adds nothing.

        Args:
            action: "dropped", "repaired" or "noted".
            what: description of the finding.
            places: names or ids of the affected entries.
            whose: kind of the places.
            hint: remedy, such as the config key to change.

        Raises:
            ValueError: the action is unknown.
        """
        if action not in ACTIONS:
            raise ValueError(f"the action of a finding must be one of {', '.join(ACTIONS)}, got {action!r}")
        if len(places) == 0:
            return
        finding = self._findings.setdefault((action, what), Finding(what, whose, hint))
        finding.count += len(places)
        limit = finding.count if _keeps_all.get() else EXAMPLES
        finding.examples.extend(places[: max(limit - len(finding.examples), 0)])

    def warn(self, message: str) -> None:
        """Log a warning. It is logged again whenever a table file with these findings is used."""
        self.warnings.append(message)
        logger.warning("%s", message)

    def to_record(self) -> dict:
        """Return the findings and warnings as JSON can hold them."""
        findings = []
        for (action, _), finding in self._findings.items():
            examples = [each if isinstance(each, (int, float, str)) else str(each) for each in finding.examples]
            findings.append({**asdict(finding), "action": action, "examples": examples})
        return {"name": self.name, "findings": findings, "warnings": self.warnings}

    def add_recorded(self, record: dict) -> None:
        """Add the findings of `to_record`, and log its warnings, which begin with "dataset NAME:", under this name."""
        for entry in record["findings"]:
            recorded = Finding(**{key: value for key, value in entry.items() if key != "action"})
            empty = replace(recorded, count=0, examples=[])
            finding = self._findings.setdefault((entry["action"], recorded.what), empty)
            finding.count += recorded.count
            finding.examples += recorded.examples
        start = f"dataset {record['name']}:"
        for message in record["warnings"]:
            is_named = message.startswith(start)
            self.warn(f"dataset {self.name}:{message.removeprefix(start)}" if is_named else message)

    def copy(self) -> DatasetReport:
        """Return a copy that later findings do not change."""
        return copy.deepcopy(self)

    def restore(self, earlier: DatasetReport) -> None:
        """Discard what was added since `earlier`, a result of `copy`, was made."""
        self.__dict__.update(copy.deepcopy(earlier.__dict__))

    def count(self, what: str) -> int:
        """Return the count of `what`, over all actions."""
        return sum(finding.count for (_, name), finding in self._findings.items() if name == what)

    def findings(self, action: str) -> list[Finding]:
        return [finding for (name, _), finding in self._findings.items() if name == action]

    def __str__(self) -> str:
        parts = [", ".join(counted(count, what) for what, count in self.totals.items())] if self.totals else []
        for action in ACTIONS:
            found = self.findings(action)
            if found:
                parts.append(f"{action}: " + ", ".join(map(str, found)))
        return f"{self.name}: " + "; ".join(parts)
