"""Show, check or rebuild the file that keeps a dataset's annotations between runs (docs/data.md).

    python tools/dataset_table.py coco/annotations/.mb_tables/*.table
    python tools/dataset_table.py --verify coco/annotations/.mb_tables/instances_train2017.json.*.table
    python tools/dataset_table.py --rebuild coco/annotations/.mb_tables/instances_train2017.json.*.table

--verify compares the size of every image with the table and lists those that differ, are missing, or are truncated now,
and annotation files whose content is another one although size and times are not.
--rebuild reads annotations and images again. The exit status is 1 if --verify finds something.
"""

from __future__ import annotations

import os
import sys

from maskrcnn_benchmark.data.datasets.stored_tables import open_stored, verify_annotations, verify_images
from maskrcnn_benchmark.engine import script


def describe(dataset) -> str:
    size = os.path.getsize(dataset.table_file) / 1e6
    return f"{dataset.table_file} ({size:,.1f} MB)\n  {dataset.annotations}\n  {dataset.report}"


def main() -> int:
    parser = script.make_parser(__doc__)
    parser.add_argument("tables", nargs="+", metavar="TABLE", help="file in a folder .mb_tables")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--verify", action="store_true", help="compare the table with all images and annotations")
    action.add_argument("--rebuild", action="store_true", help="read annotations and images again")
    args = parser.parse_args()
    status = 0
    for path in args.tables:
        try:
            dataset = open_stored(path, args.rebuild)
        except (OSError, ValueError, KeyError) as error:
            sys.exit(f"error: {path}: {error}")
        print(describe(dataset))
        if args.verify:
            wrong = 0
            for index, trouble in verify_images(dataset):
                print(f"  {dataset.path(index)}: {trouble}")
                wrong += 1
            print(f"  {wrong:,} of {len(dataset):,} images are not as the table says")
            changed = list(verify_annotations(dataset))
            for name, trouble in changed:
                print(f"  {name}: {trouble}")
            print(f"  {len(changed):,} annotation files are not as the table says")
            status |= wrong > 0 or bool(changed)
    return int(status)


if __name__ == "__main__":
    script.run(main)
