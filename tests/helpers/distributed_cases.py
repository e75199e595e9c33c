"""Functions that tests with several processes run in each process."""

from __future__ import annotations

import contextlib
import signal

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from helpers.toy_training import ToyDetector, ToyLoader, signal_self_at, train, without_batch_statistics
from maskrcnn_benchmark.config import cfg as defaults
from maskrcnn_benchmark.engine.inference import compute_on_dataset, gather_predictions
from maskrcnn_benchmark.engine.launch import hold_lock
from maskrcnn_benchmark.engine.run_lock import FolderInUse, RunLock
from maskrcnn_benchmark.engine.stopping import Stopped
from maskrcnn_benchmark.engine.training_step import TrainingStep
from maskrcnn_benchmark.modeling.detector import build_detection_model
from maskrcnn_benchmark.modeling.rpn.rpn import build_rpn
from maskrcnn_benchmark.modeling.semantic import segmentation_losses as segmentation
from maskrcnn_benchmark.modeling.semantic.loss import semantic_loss
from maskrcnn_benchmark.structures.bounding_box import BoxList
from maskrcnn_benchmark.structures.image_list import ImageList, to_image_list
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap
from maskrcnn_benchmark.utils import comm


def talk():
    """Call everything in utils.comm once; return the results."""
    rank = comm.get_rank()
    buffers = torch.nn.BatchNorm1d(2)
    buffers.running_mean += rank + 1
    comm.broadcast_buffers(buffers)
    mine = torch.tensor([1.0 + rank])
    losses = {"b": torch.tensor(1.0 + rank), "a": torch.tensor(10.0 * rank)}
    comm.synchronize()
    return {
        "world_size": comm.get_world_size(),
        "main": comm.is_main_process(),
        "all_gather": comm.all_gather({"rank": rank, "text": "x" * (rank + 1)}),
        "gather": comm.gather(rank),
        "all_reduce_sum": comm.all_reduce_sum(mine),
        "unchanged": mine,
        "mean": list(comm.reduce_dict(losses).items()),
        "sum": comm.reduce_dict(losses, average=False),
        "running_mean": buffers.running_mean,
    }


def train_toy(folder, options):
    """Train in all processes; return the weights, or the text of a FloatingPointError."""
    try:
        model = train(folder, build=without_batch_statistics, wrap=DistributedDataParallel, **options)
    except FloatingPointError as error:
        return str(error)
    return model.state_dict()


def train_toy_until_stopped(folder, rank, call, options):
    """Train with a SIGTERM to one process at one forward pass; return the exit status."""
    arguments = {"after_forward": signal_self_at(call, signal.SIGTERM)} if comm.get_rank() == rank else {}
    with pytest.raises(Stopped) as stopped:
        train(folder, build=without_batch_statistics, wrap=DistributedDataParallel, **arguments, **options)
    return stopped.value.code


def start_in_a_folder_in_use(folder):
    """Lock a folder that another training holds; return the name of the exception of each process."""
    held = RunLock(folder) if comm.is_main_process() else contextlib.nullcontext()
    comm.synchronize()
    with held, pytest.raises((FolderInUse, SystemExit)) as refused:
        hold_lock(folder)
    return type(refused.value).__name__


def predict_toy_until_stopped(rank):
    """Predict with a Ctrl-C to one process at its first batch; return the exit status."""
    model = ToyDetector()
    if comm.get_rank() == rank:
        model.register_forward_hook(signal_self_at(1, signal.SIGINT))
    with pytest.raises(Stopped) as stopped:
        compute_on_dataset(model, ToyLoader(4), "cpu")
    return stopped.value.code


def predict_toy(skip):
    """Predict in all processes; return the gathered predictions without the images in `skip`."""
    loader = ToyLoader(2)
    predictions = compute_on_dataset(ToyDetector(), loader, "cpu")
    kept = {index: prediction for index, prediction in predictions.items() if index not in skip}
    return gather_predictions(kept, len(loader.dataset))


def dense_losses(which):
    """Return losses and gradients of a small RPN and a small RetinaNet for some of two fixed images.

    One image has objects, the other has none, and RPN samples every anchor.
    """
    torch.manual_seed(0)
    cfg = defaults.clone()
    cfg.merge_from_list(["MODEL.RPN.ANCHOR_SIZES", (32,), "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 100_000])
    cfg.merge_from_list(["MODEL.RPN_ONLY", True, "MODEL.RETINANET.NUM_CONVS", 1, "MODEL.RETINANET.NUM_CLASSES", 4])
    models = {"rpn": build_rpn(cfg, 8)}
    cfg.merge_from_list(["MODEL.RETINANET_ON", True])
    models["retinanet"] = build_rpn(cfg, 8)
    # the second image is smaller, so that the processes sample different numbers of anchors
    images = to_image_list([torch.zeros(3, 96, 128), torch.zeros(3, 64, 64)])
    maps = [torch.randn(2, 8, -(-96 // stride), 128 // stride) for stride in (8, 16, 32, 64, 128)]
    targets = [BoxList([[10.0, 10, 60, 70], [50.0, 20, 90, 60]], (128, 96)), BoxList([], (64, 64))]
    targets[0].add_field("labels", torch.tensor([1, 3]))
    targets[1].add_field("labels", torch.zeros(0, dtype=torch.int64))

    images = ImageList(images.tensors[which], [images.image_sizes[i] for i in which])
    results = {}
    for name, model in models.items():
        features = [level[which] for level in maps]
        losses = model(images, features[1:2] if name == "rpn" else features, [targets[i] for i in which])[1]
        sum(losses.values()).backward()
        results |= {key: value.detach() for key, value in losses.items()}
        results |= {f"{name}.{key}": parameter.grad for key, parameter in model.named_parameters()}
    return results


def dense_losses_by_rank():
    return dense_losses([comm.get_rank()])


def segmentation_losses(which):
    """Return segmentation losses and gradients of the logits for some of three images with 60, 7 and no labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 8, 8, generator=generator)[which].requires_grad_()
    labels = torch.randint(0, 4, (3, 8, 8), generator=generator)
    for image, count in enumerate((60, 7, 0)):
        labels[image].view(-1)[count:] = IGNORE_LABEL
    weights = (1.0, 2.0, 0.5, 0.1)
    results = {}
    for name, loss in {
        "cross_entropy": segmentation.cross_entropy(logits, labels[which]),
        "weighted": segmentation.cross_entropy(logits, labels[which], weights),
        "dice": segmentation.dice(logits, labels[which]),
        "cross_entropy_dice": segmentation.cross_entropy_dice(logits, labels[which], weights),
        "hard_examples": segmentation.hard_examples(logits, labels[which], 0.5, 0.0),
        "semantic_loss": semantic_loss(logits, [SemanticMap(each.to(torch.uint8)) for each in labels[which]]),
    }.items():
        (grad,) = torch.autograd.grad(loss, logits)
        results[name] = loss.detach(), grad
    return results


def segmentation_losses_by_rank():
    return segmentation_losses([[0], [1, 2]][comm.get_rank()])


def train_where_one_process_has_no_object(cfg):
    """Train a detector for two steps, with no objects on rank 1.

    Returns:
        Losses of each step, whether each parameter has a gradient, and the first parameter.
    """
    torch.manual_seed(0)
    model = DistributedDataParallel(build_detection_model(cfg))
    step = TrainingStep(model, torch.optim.SGD(model.parameters(), 1e-3), torch.device("cpu"), torch.float32, 0.0)
    boxes = torch.zeros(0, 4) if comm.get_rank() == 1 else torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    target = BoxList(boxes, (64, 64))
    target.add_field("labels", torch.ones(len(boxes), dtype=torch.int64))
    losses = []
    for _ in range(2):
        losses.append(step.accumulate([(to_image_list(torch.ones(1, 3, 64, 64)), (target,), (0,))]))
        step.update()
    return losses, [parameter.grad is not None for parameter in model.parameters()], next(model.parameters()).detach()
