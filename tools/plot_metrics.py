"""Plot a metric of several trainings over their iterations, from the metrics.json in their folders.

    python tools/plot_metrics.py output/a output/b --metric AP50 --output curves.png

--metric is a name in metrics.json, or its last part: AP50 selects bees_val/bbox/AP50. Curves with fewer than 50 points
have markers. Requires matplotlib.
"""

from __future__ import annotations

import os

from maskrcnn_benchmark.engine import script
from maskrcnn_benchmark.engine.metrics_file import FILE_NAME, read_metrics
from maskrcnn_benchmark.visual.figure_file import check_figure_file, new_figure, save_figure


def curve(folder: str, metric: str) -> list[tuple[int, float]]:
    """Return the (iteration, value) pairs of a metric in a training folder.

    Raises:
        FileNotFoundError: the folder has no metrics.json.
        ValueError: no metric or several metrics match. The message lists all names.
    """
    lines = read_metrics(os.path.join(folder, FILE_NAME))
    names = sorted({name for line in lines for name in line} - {"iteration"})
    fitting = [name for name in names if name == metric] or [name for name in names if name.split("/")[-1] == metric]
    if len(fitting) != 1:
        found = "none" if not fitting else ", ".join(fitting)
        raise ValueError(f"{folder}: exactly one name must match --metric {metric}, found {found}; names are {names}")
    return [(line["iteration"], line[fitting[0]]) for line in lines if fitting[0] in line]


def main() -> int:
    parser = script.make_parser(__doc__)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="OUTPUT_DIRs of trainings")
    parser.add_argument("--metric", default="loss", help="metric to plot (default: %(default)s)")
    parser.add_argument("--labels", nargs="+", metavar="TEXT", help="names of the curves (default: the folders)")
    parser.add_argument("--title", default="", help="title of the plot")
    parser.add_argument("--output", default="curves.png", metavar="FILE", help="file to write (default: %(default)s)")
    args = parser.parse_args()
    labels = args.labels or args.folders
    if len(labels) != len(args.folders):
        parser.error(f"--labels has {len(labels)} names for {len(args.folders)} folders")
    try:
        check_figure_file(args.output)
        curves = [curve(folder, args.metric) for folder in args.folders]
    except (ImportError, OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    figure = new_figure(figsize=(7, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot(xlabel="iteration", ylabel=args.metric, title=args.title)
    for points, label in zip(curves, labels, strict=True):
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 50 else "", label=label)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, args.output)
    print(args.output)
    return 0


if __name__ == "__main__":
    script.run(main)
