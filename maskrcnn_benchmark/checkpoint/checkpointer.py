"""Write and read training checkpoints, and load weights from files, catalog names and URLs.

A training checkpoint NAME.pth is a dict with "model", "optimizer", "scheduler" and further entries of the trainer
("iteration", ...). It holds only tensors and plain Python types. The text file `last_checkpoint` beside it names the
newest checkpoint.
"""

from __future__ import annotations

import logging
import os

import torch

from maskrcnn_benchmark.utils.atomic_write import atomic_write

from .body_check import check_body, check_complete, check_some
from .caffe2 import load_c2_format
from .download import cache_url
from .files import MARK, check_entries, mark_of, marked, read_checkpoint, write_checkpoint
from .latest import find_latest
from .load_report import LoadReport, shortened
from .matching import load_state_dict
from .wrappers import without_inserted

__all__ = ["Checkpointer", "DetectronCheckpointer", "read_checkpoint", "write_checkpoint"]

_LONGEST_MESSAGE = 3000


def bare_model(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel and torch.compile, nested in any order."""
    while True:
        if isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            model = model.module
        elif "_orig_mod" in model._modules:  # of torch.compile
            model = model._orig_mod
        else:
            return model


class Checkpointer:
    """Writer and reader of checkpoints of a module of any kind, with optimizer and scheduler.

    Args:
        model: keys are saved without the prefixes of DataParallel, DistributedDataParallel and torch.compile.
        optimizer, scheduler: saved and restored if given.
        save_dir: folder of the checkpoints and of `last_checkpoint`; "" disables writing and resuming.
        save_to_disk: whether this process writes; set it to True only in the main process.
        logger: default: the module's logger.

    Attributes:
        report: LoadReport of the last `load`.

    `load` raises if a file has no tensor of the model, or lacks weights of a model that is a body. A file written by
    this class must have every tensor of the model if it is resumed from, or loaded without an optimizer, as for a test.
    """

    def __init__(self, model, optimizer=None, scheduler=None, save_dir="", save_to_disk=None, logger=None):
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.save_dir = save_dir
        self.save_to_disk = save_to_disk
        self.logger = logger or logging.getLogger("maskrcnn_benchmark.utils.checkpoint")
        self.report: LoadReport | None = None
        self._own_file: dict | None = None  # mark of the file being loaded, if it must be complete

    def save(self, name: str, **kwargs) -> None:
        """Write save_dir/NAME.pth with the further entries `kwargs`, then name it in `last_checkpoint`.

        Does nothing without save_dir, or if save_to_disk is not true. Writing is atomic: a killed process leaves the
        old or the new files, never incomplete ones.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        state = bare_model(self.model).state_dict()
        data = {"model": {without_inserted(key): value for key, value in state.items()}}
        if self.optimizer is not None:
            data["optimizer"] = self.optimizer.state_dict()
        if self.scheduler is not None:
            data["scheduler"] = self.scheduler.state_dict()
        save_file = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {save_file}")
        write_checkpoint(save_file, marked({**data, **kwargs}))
        self.tag_last_checkpoint(save_file)

    def load(self, f=None, use_latest=True, *, model_only=False, skip_mismatched_heads=False) -> dict:
        """Load the newest checkpoint of save_dir if `use_latest` and there is one, else the file `f`.

        Optimizer and scheduler are restored if both the file and this object have them.

        Args:
            f: path (DetectronCheckpointer: also catalog:// and http names); None or "" loads nothing.
            use_latest: resume from save_dir if possible.
            model_only: load only the weights of `f`. Ignored when resuming from save_dir.
            skip_mismatched_heads: keep the model's values of tensors outside "backbone." that have another shape in
                `f` (another number of classes), and report them. Otherwise, and always when resuming from save_dir,
                they are an error.

        Returns:
            The other entries of the file ("iteration", ...); {} with model_only.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file cannot be used; the message says what to do.
        """
        resuming = use_latest and self.has_checkpoint()
        if resuming:
            f, model_only, skip_mismatched_heads = self.get_checkpoint_file(), False, False
        if not f:
            self.logger.info("No checkpoint found. Initializing model from scratch")
            return {}
        self.logger.info(f"Loading checkpoint from {f}")
        checkpoint = dict(self._load_file(f))
        mark = mark_of(checkpoint)
        for_test = self.optimizer is None and not (model_only or skip_mismatched_heads)
        self._own_file = (mark or {}) if resuming or (mark and for_test) else None
        try:
            if self._own_file is not None:
                check_entries(checkpoint, self._own_file)
            # Subclasses written for the forks override _load_model(checkpoint), without the second argument.
            options = {"skip_mismatched_heads": True} if skip_mismatched_heads else {}
            self._load_model(checkpoint, **options)
        except ValueError as error:
            raise ValueError(f"{f}: {shortened(str(error), _LONGEST_MESSAGE)}") from error
        finally:
            self._own_file = None
        for entry in ("model", MARK):
            checkpoint.pop(entry, None)
        if model_only:
            return {}
        self._load_solver(f, checkpoint)
        return checkpoint

    def read(self, f: str | os.PathLike) -> dict:
        """Return the entries of a file, with the tensors under "model", without loading them into the model.

        Args:
            f: see `load`.
        """
        return dict(self._load_file(f))

    def has_checkpoint(self) -> bool:
        """Return whether save_dir has a `last_checkpoint`."""
        return bool(self.save_dir) and os.path.exists(os.path.join(self.save_dir, "last_checkpoint"))

    def get_checkpoint_file(self) -> str:
        """Return the checkpoint to resume from, see `find_latest`; "" without a `last_checkpoint`.

        Raises:
            FileNotFoundError: all checkpoints are missing or damaged.
        """
        return find_latest(self.save_dir, self.logger) if self.has_checkpoint() else ""

    def tag_last_checkpoint(self, last_filename: str) -> None:
        """Write the file's name to `last_checkpoint`, atomically."""
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint")) as file:
            file.write(os.fsencode(last_filename))

    def _load_file(self, f) -> dict:
        """Read a file as a dict with the tensors under "model"."""
        return read_checkpoint(f)

    def _load_model(self, checkpoint: dict, skip_mismatched_heads: bool = False) -> None:
        self._copy_weights(checkpoint, skip_mismatched_heads, check=check_some)

    def _copy_weights(self, checkpoint: dict, skip_mismatched_heads: bool, check) -> None:
        own_file = self._own_file

        def check_all(report: LoadReport) -> None:
            check(report)
            if own_file is not None:
                check_complete(report, counters_too="entries" in own_file)

        self.report = load_state_dict(
            bare_model(self.model),
            checkpoint.pop("model"),
            check=check_all,
            skip_mismatched_outside="backbone." if skip_mismatched_heads else None,
        )

    def _load_solver(self, f, checkpoint: dict) -> None:
        for name, target in (("optimizer", self.optimizer), ("scheduler", self.scheduler)):
            if name not in checkpoint or target is None:
                continue
            self.logger.info(f"Loading {name} from {f}")
            try:
                target.load_state_dict(checkpoint.pop(name))
            except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
                raise ValueError(
                    f"{f}: the state of the {name} does not fit this training ({error}). Resume with the code and the "
                    "config that wrote the file, or load only its weights with "
                    f"`python tools/remove_solver_states.py {f}` or load(..., model_only=True)."
                ) from error


class DetectronCheckpointer(Checkpointer):
    """Checkpointer for detectors, which also loads catalog:// and http names and Caffe2 files.

    Like Checkpointer, it reads the names of the forks, detectron2, mmdetection, timm and torchvision, see `dialects`.
    `load` raises a ValueError if a file lacks weights of `backbone.body`. Missing heads keep their initial values and
    are reported.

    Args:
        cfg: MODEL.BACKBONE.CONV_BODY is used for Caffe2 files, MODEL.CONVENTION for a warning.
        model, optimizer, scheduler, save_dir, save_to_disk, logger: see Checkpointer.
    """

    def __init__(self, cfg, model, optimizer=None, scheduler=None, save_dir="", save_to_disk=None, logger=None):
        super().__init__(model, optimizer, scheduler, save_dir, save_to_disk, logger)
        self.cfg = cfg

    def _load_file(self, f) -> dict:
        f = os.fspath(f)
        if f.startswith(("catalog://", "http://", "https://")):
            f = self._fetch(f)
        return load_c2_format(self.cfg, f) if f.endswith(".pkl") else super()._load_file(f)

    def _fetch(self, name: str) -> str:
        """Return the local file of a catalog name or an address; addresses of the catalog are tried one by one."""
        # imported here, because plain files do not require the config package
        from . import zoo

        if name.startswith("catalog://"):
            entry = zoo.find_weights(name)
            self.logger.info(f"{name} points to {', '.join(entry.addresses) or 'a local package'}")
        else:
            entry = zoo.weights_at(name)
        cached = zoo.fetch(entry) if entry else cache_url(name)
        self.logger.info(f"url {name} cached in {cached}")
        return cached

    def _load_model(self, checkpoint: dict, skip_mismatched_heads: bool = False) -> None:
        self._copy_weights(checkpoint, skip_mismatched_heads, check=check_body)
        wanted, has = self.report.convention, self.cfg.MODEL.get("CONVENTION")
        heads = any(key.startswith("roi_heads.") for key in self.report.matched)
        if wanted and heads and has not in (None, wanted):
            self.logger.warning(
                f"The file is from {wanted}, which has other numeric conventions, but MODEL.CONVENTION is {has!r}. To "
                f"reproduce its published results set it to {wanted!r}, and INPUT.PIXEL_MEAN and PIXEL_STD to the "
                "file's."
            )
