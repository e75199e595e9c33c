"""Predict images, folders, lists of images, and videos.

    python tools/predict.py images/ --weights model_final.pth --output found --draw
    find /photos -name '*.jpg' | python tools/predict.py - --weights model_final.pth --output found
    torchrun --nproc_per_node=2 tools/predict.py images/ --weights model_final.pth --output found

Writes results.json (COCO results) and predictions.jsonl (one JSON line per image) to the output folder; options add
other files. Images that cannot be read are skipped and listed in unreadable.txt. --resume continues an interrupted run.
"""

# First, because the import runs the user's set-up code, if there is any.
import maskrcnn_benchmark.utils.env  # noqa: F401  # isort: skip
from maskrcnn_benchmark.engine import process  # isort: skip

process.before_torch()

import argparse
import functools
import json
import os

from maskrcnn_benchmark.engine import launch, script
from maskrcnn_benchmark.engine.image_sources import find_sources
from maskrcnn_benchmark.engine.predict_many import predict_many
from maskrcnn_benchmark.engine.prediction_files import (
    SHEET_IMAGES,
    from_json,
    save_crops,
    save_drawn,
    save_maps,
    save_sheet,
    spread,
    write_annotations,
    write_results,
)
from maskrcnn_benchmark.engine.prediction_journal import JOINED, read_joined
from maskrcnn_benchmark.engine.predictor import Predictor
from maskrcnn_benchmark.engine.tracking import Tracker, VideoTracks
from maskrcnn_benchmark.export.exported import exported_setup
from maskrcnn_benchmark.utils.comm import get_rank, is_main_process
from maskrcnn_benchmark.utils.logger import setup_logger
from maskrcnn_benchmark.utils.text_file import read_text

# Default minimum score of objects that are drawn, cropped and annotated.
SCORE = 0.5
# Minimum score of objects that continue a track.
TRACKED_SCORE = 0.1


def make_parser() -> argparse.ArgumentParser:
    parser = script.make_parser(__doc__)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, folder, pattern, text file with one path per line, video, or - for a list from stdin",
    )
    parser.add_argument("--weights", metavar="FILE", help="checkpoint (default: MODEL.WEIGHT of --config-file)")
    parser.add_argument("--model", metavar="FILE", help="exported model (tools/export.py) in place of --weights")
    parser.add_argument("--config-file", metavar="FILE", help="config file (default: the config in the checkpoint)")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder for the results")
    score = "minimum score of objects that are drawn, cropped and annotated: a number, or CLASS=NUMBER; may be repeated"
    parser.add_argument("--score", action="append", default=[], metavar="S", help=f"{score} (default: {SCORE})")
    parser.add_argument(
        "--min-score", type=float, metavar="S", help="minimum score in the results (default: the model's)"
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="keep these classes only")
    parser.add_argument("--jsonl", action="store_true", help="write predictions.jsonl only, no results.json")
    parser.add_argument("--draw", action="store_true", help="write drawn images to OUTPUT/drawn")
    parser.add_argument("--crops", action="store_true", help="write each object to OUTPUT/crops/CLASS")
    parser.add_argument("--maps", action="store_true", help="write semantic and panoptic maps as PNG to OUTPUT/maps")
    parser.add_argument("--sheet", action="store_true", help=f"write sheet.jpg with {SHEET_IMAGES} drawn images")
    parser.add_argument("--as-coco", action="store_true", help="write annotations.json, to correct and train on")
    parser.add_argument("--image-ids", metavar="FILE", help="COCO file with the image ids for results.json")
    parser.add_argument("--track", action="store_true", help="track the objects of a video")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="predict every N-th frame of a video")
    parser.add_argument(
        "--tiles", type=int, default=0, metavar="PIXELS", help="cut large images into windows with sides of PIXELS"
    )
    parser.add_argument("--overlap", type=float, default=0.2, help="overlap of windows, a share of their side")
    parser.add_argument("--batch-size", type=int, metavar="N", help="images of equal size per batch")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: MODEL.DEVICE)")
    parser.add_argument("--dtype", help="float32, bfloat16, float16 or auto (default: DTYPE)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        help="config overrides, KEY VALUE KEY VALUE ..., after all other options",
    )
    return parser


def parse_scores(given: list[str], class_names) -> dict[str, float]:
    """Convert the values of --score to a threshold per class."""
    by_class = dict.fromkeys(class_names, SCORE)
    for text in sorted(given, key=lambda each: "=" in each):
        name, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise ValueError(f"--score must be a number or CLASS=NUMBER, got {text!r}") from None
        if equals and name not in by_class:
            raise ValueError(
                f"--score {text}: the model has no class {name!r}. Its classes are: {', '.join(class_names)}"
            )
        by_class.update({name: value} if equals else dict.fromkeys(class_names, value))
    return by_class


def image_ids(lines, path: str | None) -> dict[str, object]:
    """Return the image ids by file name: 1, 2, ... or those of a COCO file, matched by name or base name."""
    names = [line["file_name"] for line in lines]
    if path is None:
        return {name: number for number, name in enumerate(names, start=1)}
    rows = json.loads(read_text(path)).get("images", [])
    known = {os.path.basename(row["file_name"]): row["id"] for row in rows} | {r["file_name"]: r["id"] for r in rows}
    found = {name: known.get(name, known.get(os.path.basename(name))) for name in names}
    lacking = [name for name, number in found.items() if number is None]
    if lacking:
        raise ValueError(f"--image-ids {path} has no image {lacking[0]} ({len(lacking)} of {len(names)} are missing)")
    return found


def write_files(args, predictor, sources, root: str, scores: dict[str, float]) -> list[str]:
    """Write the files that cover all images; return their paths."""
    written = [os.path.join(args.output, JOINED)]
    lines = functools.partial(read_joined, args.output)
    ids = image_ids((line for line in lines() if "error" not in line), args.image_ids)
    if not args.jsonl:
        written.append(os.path.join(args.output, "results.json"))
        write_results(lines(), written[-1], ids)
    if args.as_coco:
        written.append(os.path.join(args.output, "annotations.json"))

        def keep(line):
            return [each for each in line["objects"] if each["score"] >= scores.get(each["class_name"], SCORE)]

        write_annotations(lines(), written[-1], ids, predictor.label_names, keep)
        images, file = os.path.abspath(root), os.path.abspath(written[-1])
        print(f"To train on it: DATASETS.TRAIN [{{FORMAT: coco, IMAGES: {images}, ANNOTATIONS: {file}}}]")
    if args.sheet and ids:
        written.append(os.path.join(args.output, "sheet.jpg"))
        chosen = set(spread(SHEET_IMAGES, len(ids)))
        paths = {source.name: source.path for source in sources}
        drawn = []
        for k, line in enumerate(line for line in lines() if "error" not in line):
            if k in chosen and line["file_name"] in paths:
                found = from_json(line, predictor.label_names, predictor.box_offset, paths[line["file_name"]])
                drawn.append((found.filter(score=scores).draw(), os.path.basename(line["file_name"])))
        if drawn:
            save_sheet(drawn, written[-1], f"{len(drawn)} of {len(ids):,} images of {root}")
    return written


def main() -> int:
    args = make_parser().parse_args()
    if args.model and (args.weights or args.config_file or args.opts or args.dtype or args.device):
        raise ValueError("--model FILE holds all of it: leave out --weights, --config-file, --opts, --dtype, --device")
    if not args.weights and not args.config_file and not args.model:
        raise ValueError(
            "--weights FILE is required, a checkpoint of tools/train_net.py; other weights require --config-file, too"
        )
    if args.every < 1:
        raise ValueError(f"--every must be at least 1, got {args.every}")
    if args.track and (args.resume or script.several_processes()):
        raise ValueError("--track requires whole videos in one process: do not use --resume or torchrun with it")
    sources, root = find_sources(args.inputs)
    if args.as_coco and any(source.is_video for source in sources):
        raise ValueError("--as-coco requires image files, which videos do not have: extract their frames first")
    predictor = Predictor(
        args.config_file,
        args.weights,
        setup=exported_setup(args.model, tiles=args.tiles, overlap=args.overlap) if args.model else None,
        opts=args.opts,
        device=args.device,
        dtype=args.dtype,
        score_threshold=args.min_score,
        batch_size=args.batch_size,
        tiles=args.tiles,
        overlap=args.overlap,
        classes=args.classes,
    )
    launch.join_processes(str(predictor.device), int(os.environ.get("LOCAL_RANK", "0")))
    logger = setup_logger("maskrcnn_benchmark", "", get_rank())
    process.prepare(logger, on_cpu=predictor.device.type == "cpu", keep_memory=True)
    scores = parse_scores(args.score, predictor.class_names)
    write = []
    if args.draw:
        write.append(functools.partial(save_drawn, folder=os.path.join(args.output, "drawn"), score=scores))
    if args.crops:
        write.append(functools.partial(save_crops, folder=os.path.join(args.output, "crops"), score=scores))
    if args.maps:
        write.append(functools.partial(save_maps, folder=os.path.join(args.output, "maps")))
    track = None
    if args.track:
        high = min(scores.values(), default=SCORE)
        tracker = Tracker(high=high, low=min(TRACKED_SCORE, high))
        track = VideoTracks((source.name for source in sources if source.is_video), tracker, args.every)
    settings = {
        "weights": str(args.model or args.weights),
        "config_file": args.config_file,
        "folder": os.path.abspath(root),
        **{
            key: getattr(args, key)
            for key in ("min_score", "classes", "tiles", "overlap", "every", "track", "dtype", "opts")
        },
    }
    outcome = predict_many(
        predictor,
        sources,
        args.output,
        settings,
        resume=args.resume,
        overwrite=args.overwrite,
        every=args.every,
        keep_images=args.draw or args.crops,
        write=[_named(each) for each in write],
        track=track,
    )
    process_name = "" if get_rank() == 0 and not script.several_processes() else f"[process {get_rank()}] "
    print(f"{process_name}{outcome.throughput()}")
    if not is_main_process():
        return 0
    written = write_files(args, predictor, sources, root, scores)
    unreadable = [line for line in read_joined(args.output) if "error" in line]
    if unreadable:
        path = os.path.join(args.output, "unreadable.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{line['file_name']}\t{line['error']}\n" for line in unreadable)
        print(f"{len(unreadable)} of {len(sources)} files could not be read, see {path}:")
        for line in unreadable[:5]:
            print(f"  {line['file_name']}: {line['error']}")
    print(f"Written: {', '.join(written)}")
    return int(bool(unreadable) and not outcome.images and not outcome.done_before)


def _named(save):
    return lambda prediction, name: save(prediction, name=name)


if __name__ == "__main__":
    script.run(main)
