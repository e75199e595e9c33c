"""Results of evaluations, and their comparison with expected figures."""

from __future__ import annotations

import logging
from collections import OrderedDict

logger = logging.getLogger("maskrcnn_benchmark.inference")

NOT_COMPUTED = -1.0


class Results:
    """Result of an evaluation.

    Args:
        results: {task: {metric: figure}}, fractions between 0 and 1, or NOT_COMPUTED.

    Attributes:
        results: the figures.
        detections: COCO result lists by iou type, for evaluations that produce them.
        as_expected: False if a figure is outside its expected range, see `evaluate`.
    """

    detections: dict[str, list[dict]] = {}
    as_expected = True

    def __init__(self, results: dict[str, dict[str, float]]):
        self.results = OrderedDict(results)

    def __getstate__(self) -> dict:
        """Pickle only the figures."""
        return {"results": self.results}

    def __repr__(self) -> str:
        lines = [""]
        for task, figures in self.results.items():
            lines += [f"Task: {task}", ", ".join(figures), ", ".join(f"{value:.4f}" for value in figures.values())]
        return "\n".join(lines) + "\n"


class COCOResults(Results):
    """Figures by task and metric: `results["bbox"]["AP50"]`, fractions between 0 and 1, -1 where not computed.

    Args:
        iou_types: tasks of METRICS.

    coco_results.pth and box_proposals.pth hold objects of this class. It unpacks into a pair, because the forks'
    evaluations return one: `results, detections = coco_evaluation(...)`.

    Raises:
        ValueError: a task is unknown.
    """

    METRICS = {
        "bbox": ["AP", "AP50", "AP75", "APs", "APm", "APl"],
        "segm": ["AP", "AP50", "AP75", "APs", "APm", "APl"],
        "box_proposal": [f"AR{area}@{limit}" for limit in (100, 1000) for area in ("", "s", "m", "l")],
        "keypoints": ["AP", "AP50", "AP75", "APm", "APl"],
    }

    def __init__(self, *iou_types: str):
        unknown = [task for task in iou_types if task not in self.METRICS]
        if unknown:
            raise ValueError(f"COCOResults got unknown tasks {unknown}; supported are {list(self.METRICS)}")
        super().__init__(
            {task: OrderedDict((metric, NOT_COMPUTED) for metric in self.METRICS[task]) for task in iou_types}
        )

    def __iter__(self):
        return iter((self, self.detections))

    def __getitem__(self, place: int):
        return (self, self.detections)[place]

    def update(self, coco_eval) -> None:
        """Copy the figures of a summarized COCO evaluator (`.params.iouType`, `.stats`); None changes nothing."""
        if coco_eval is None:
            return
        task = coco_eval.params.iouType
        # COCO's summary lists precisions first, in the order of METRICS, then recalls, which are not used
        for metric, value in zip(self.METRICS[task], coco_eval.stats, strict=False):
            self.results[task][metric] = float(value)


def compare_with_expected(results: Results, expected_results, sigma_tol: float) -> list[tuple[bool, str]]:
    """Compare figures with their expected values.

    Args:
        results: the figures.
        expected_results: entries (task, metric, (mean, std)), as in TEST.EXPECTED_RESULTS.
        sigma_tol: maximum distance of a figure from the mean in std, inclusive.

    Returns:
        One (passed, line for the log) per expected figure. A figure that was not measured does not pass.

    Raises:
        ValueError: an entry has another form.
    """
    outcome = []
    for entry in expected_results:
        try:
            task, metric, (mean, std) = entry
            mean, std = float(mean), float(std)
        except (TypeError, ValueError):
            raise ValueError(
                f"TEST.EXPECTED_RESULTS has the entry {entry!r}; every entry must be [task, metric, [mean, std]], "
                "for example ['bbox', 'AP', [0.38, 0.002]]"
            ) from None
        low, high = mean - sigma_tol * std, mean + sigma_tol * std
        value = results.results.get(task, {}).get(metric)
        passed = value is not None and low <= value <= high
        shown = "not measured" if value is None else f"{value:.3f}"
        outcome.append(
            (
                passed,
                f"{'PASS' if passed else 'FAIL'}: {task} > {metric} sanity check (actual vs. expected): {shown} vs. "
                f"mean={mean:.4f}, std={std:.3f}, range=({low:.4f}, {high:.4f})",
            )
        )
    return outcome


def check_expected_results(results: Results, expected_results, sigma_tol: float) -> bool:
    """Log `compare_with_expected` (PASS as INFO, FAIL as ERROR), and return whether every figure passed."""
    outcome = compare_with_expected(results, expected_results, sigma_tol)
    for passed, line in outcome:
        logger.log(logging.INFO if passed else logging.ERROR, line)
    return all(passed for passed, _ in outcome)
