"""Findings of the doctor, and their form as text and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from maskrcnn_benchmark.utils.counted import counted

SEVERITIES = ("error", "warning", "note")
# Maximum number of examples in the text, and of a finding.
IN_TEXT = 5
MOST = 100


@dataclass(frozen=True)
class Example:
    """One place of a finding.

    Attributes:
        split: name of the dataset.
        image_id: id in the annotations; None if the finding is not about an image.
        annotation_id: id in the annotations; None if unknown.
        note: details, such as a class or a size.
        boxes: (x1, y1, x2, y2) in pixels of the image, to be drawn.
        image: index of the image in its dataset; None if it cannot be shown.
        beside: (split, index) of another image to show with it.
    """

    split: str
    image_id: object = None
    annotation_id: object = None
    note: str = ""
    boxes: tuple[tuple[float, ...], ...] = ()
    image: int | None = None
    beside: tuple[str, int] | None = None

    def __str__(self) -> str:
        parts = [] if self.image_id is None else [f"image {self.image_id}"]
        parts += [] if self.annotation_id is None else [f"annotation {self.annotation_id}"]
        where = " ".join(parts)
        return f"{where} ({self.note})" if where and self.note else where or self.note


@dataclass
class Finding:
    """One kind of problem.

    Attributes:
        check: short name of the check, stable for programs, such as "nested-boxes".
        severity: one of SEVERITIES. An error stops training or falsifies the metrics; a warning costs accuracy or data.
        title: what was found, without the count.
        splits: names of the datasets that it is about.
        count: number of affected entries; None if the finding has no count.
        examples: up to MOST of them, the worst first.
        remedy: what to do, with the config key or the command.
    """

    check: str
    severity: str
    title: str
    splits: tuple[str, ...] = ()
    count: int | None = None
    examples: list[Example] = field(default_factory=list)
    remedy: str = ""

    @property
    def headline(self) -> str:
        """The title with its count."""
        return self.title if self.count is None else counted(self.count, self.title)

    def __post_init__(self):
        if self.severity not in SEVERITIES:
            raise ValueError(f"the severity must be one of {', '.join(SEVERITIES)}, got {self.severity!r}")


@dataclass
class SplitSummary:
    """Counts of one dataset.

    Attributes:
        name: name of the dataset.
        role: "train" or "test".
        images, boxes: numbers of usable images and boxes.
        class_counts: boxes by class, in the order of labels.
        sizes: boxes by range of sizes, see `sizes.py`; empty if unknown.
        measured_in: "the image" or "the network input", whose pixels `sizes` are measured in.
    """

    name: str
    role: str
    images: int
    boxes: int
    class_counts: dict[str, int]
    sizes: dict[str, int] = field(default_factory=dict)
    measured_in: str = "the image"

    @property
    def totals(self) -> str:
        """Numbers of images, boxes and classes in words."""
        counts = {"images": self.images, "boxes": self.boxes, "classes": len(self.class_counts)}
        return ", ".join(counted(count, what) for what, count in counts.items())


@dataclass
class Diagnosis:
    """All findings about all datasets of a run."""

    subject: str
    splits: list[SplitSummary] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings, and keep all in the order of severity."""
        self.findings.extend(findings)
        self.findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def status(self, strict: bool = False) -> int:
        """Return the exit status: 1 if there are errors, with `strict` also for warnings, else 0."""
        return int(bool(self.count("error") or strict and self.count("warning")))

    def headline(self) -> str:
        counts = [(self.count(severity), severity) for severity in SEVERITIES]
        found = ", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in counts if number)
        return found or "nothing found"

    def to_json(self) -> dict:
        """Return the content of --json; at most MOST examples per finding."""
        return {
            "version": 1,
            "subject": self.subject,
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "splits": [asdict(split) for split in self.splits],
            "findings": [_as_record(finding) for finding in self.findings],
        }

    def to_text(self) -> str:
        """Return the report for a terminal."""
        lines = [self.subject]
        for split in self.splits:
            lines.append(f"  {split.name} ({split.role}): {split.totals}")
            if split.class_counts:
                lines.append(f"    boxes by class: {_counts(split.class_counts)}")
            if split.sizes:
                lines.append(f"    boxes by size in {split.measured_in}: {_counts(split.sizes)}")
        for finding in self.findings:
            lines += ["", *_lines(finding)]
        return "\n".join([*lines, "", self.headline()])


def example_texts(examples: Sequence[Example], limit: int) -> list[str]:
    """Return the first few examples as text, and "..." if there are more."""
    return [*map(str, examples[:limit]), *(["..."] if len(examples) > limit else [])]


def _lines(finding: Finding) -> list[str]:
    where = f"{', '.join(finding.splits)}: " if finding.splits else ""
    lines = [f"{finding.severity.upper():7} {where}{finding.headline}"]
    if finding.examples:
        lines.append(f"        {'; '.join(example_texts(finding.examples, IN_TEXT))}")
    return lines + ([f"        -> {finding.remedy}"] if finding.remedy else [])


def _counts(counts: dict[str, int], limit: int = 20) -> str:
    """Return 'name 12, name 3', the most frequent ones if there are many."""
    if len(counts) <= limit:
        return ", ".join(f"{name} {count:,}" for name, count in counts.items())
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    most = ", ".join(f"{name} {count:,}" for name, count in ordered[: limit - 3])
    return f"{most}, ..., " + ", ".join(f"{name} {count:,}" for name, count in ordered[-3:])


def _as_record(finding: Finding) -> dict:
    examples = [
        {
            "split": each.split,
            "image_id": _plain(each.image_id),
            "annotation_id": _plain(each.annotation_id),
            "note": each.note,
            "boxes": [[round(float(number), 2) for number in box] for box in each.boxes],
        }
        for each in finding.examples[:MOST]
    ]
    return {
        "check": finding.check,
        "severity": finding.severity,
        "title": finding.title,
        "splits": list(finding.splits),
        "count": finding.count,
        "examples": examples,
        "remedy": finding.remedy,
    }


def _plain(value):
    return value if value is None or isinstance(value, (int, float, str)) else str(value)
