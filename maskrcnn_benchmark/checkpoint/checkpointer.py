"""Writing and reading checkpoints of a training, and reading weights from wherever a config says they are.

A training checkpoint NAME.pth is a dict with "model", "optimizer", "scheduler" and whatever the trainer adds
("iteration", ...), of tensors and plain Python types only. The text file `last_checkpoint` beside it names the newest.
"""

from __future__ import annotations

import logging
import os
import re

import torch

from maskrcnn_benchmark.utils.atomic_write import atomic_write

from .body_check import check_body
from .caffe2 import load_c2_format
from .download import cache_url
from .load_report import LoadReport
from .matching import load_state_dict
from .plain_types import to_plain
from .safe_unpickle import is_complete, load_pickled
from .safetensors_file import is_safetensors, read_safetensors

# Under which entry other programs keep the tensors.
_MODEL_ENTRIES = ("model", "state_dict", "model_state")


def read_checkpoint(path: str | os.PathLike) -> dict:
    """What is in a file of torch.save, a plain pickle or a .safetensors file, with the tensors under "model".

    Raises:
        FileNotFoundError, ValueError: no such file, or it is not usable; the message says what to do.
    """
    loaded = read_safetensors(path) if is_safetensors(path) else load_pickled(path)
    if not hasattr(loaded, "keys"):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not a checkpoint (a dict of tensors by name)")
    for entry in _MODEL_ENTRIES:
        if hasattr(loaded.get(entry), "keys"):
            return {**{key: value for key, value in loaded.items() if key != entry}, "model": loaded[entry]}
    return {"model": loaded}


def write_checkpoint(path: str | os.PathLike, data: dict) -> None:
    """Writes `data` (nested dicts, lists, tuples of tensors, numbers and text), atomically.

    Raises:
        TypeError: an entry is something else; the message names it.
        OSError: it could not be written; an older file of this name is as it was.
    """
    plain = to_plain(data)
    try:
        with atomic_write(path) as file:
            torch.save(plain, file)
    except (OSError, RuntimeError) as error:
        # torch ends with an error of its zip writer; what the disk said stands behind it
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(
            f"could not write the checkpoint {path}: {reason}. An older file of this name is intact."
        ) from error


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    while isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        model = model.module
    return model


class Checkpointer:
    """Saves and restores a module of any kind, with optimizer and scheduler.

    Args:
        model: keys are saved without the "module." of DataParallel and DistributedDataParallel.
        optimizer, scheduler: saved and restored when given.
        save_dir: folder of the checkpoints and of `last_checkpoint`; "" = none is written or looked for.
        save_to_disk: whether this process writes; give it True on the main process only.
        logger: where lines go; default the module's own.

    After `load`, `report` (LoadReport) says what became of every tensor.
    """

    def __init__(self, model, optimizer=None, scheduler=None, save_dir="", save_to_disk=None, logger=None):
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.save_dir = save_dir
        self.save_to_disk = save_to_disk
        self.logger = logger or logging.getLogger("maskrcnn_benchmark.utils.checkpoint")
        self.report: LoadReport | None = None

    def save(self, name: str, **kwargs) -> None:
        """Writes save_dir/NAME.pth with the entries `kwargs` added, then names it in `last_checkpoint`.

        Does nothing without save_dir or where save_to_disk is not true. A process killed at any moment leaves the
        former checkpoint and `last_checkpoint`, or the new ones.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": _unwrapped(self.model).state_dict()}
        if self.optimizer is not None:
            data["optimizer"] = self.optimizer.state_dict()
        if self.scheduler is not None:
            data["scheduler"] = self.scheduler.state_dict()
        save_file = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {save_file}")
        write_checkpoint(save_file, {**data, **kwargs})
        self.tag_last_checkpoint(save_file)

    def load(self, f=None, use_latest=True, *, model_only=False, skip_mismatched_heads=False) -> dict:
        """Restores the newest checkpoint of save_dir if `use_latest` and there is one, else the file `f`.

        Optimizer and scheduler are restored when both the file and this object have them.

        Args:
            f: path (DetectronCheckpointer: also catalog:// and http names); None or "" = keep the model as it is.
            model_only: take the weights of `f` and nothing else; an empty dict is returned. Not applied to the newest
                checkpoint of save_dir.
            skip_mismatched_heads: tensors of `f` outside "backbone." whose shape differs (another number of classes)
                keep the values the model has, and are reported; otherwise, and always for the newest checkpoint of
                save_dir, they are an error.

        Returns:
            the other entries of the file ("iteration", ...).

        Raises:
            FileNotFoundError, ValueError: no such file, or it is not usable; the message says what to do.
        """
        if use_latest and self.has_checkpoint():
            f, model_only, skip_mismatched_heads = self.get_checkpoint_file(), False, False
        if not f:
            self.logger.info("No checkpoint found. Initializing model from scratch")
            return {}
        self.logger.info(f"Loading checkpoint from {f}")
        checkpoint = dict(self._load_file(f))
        try:
            self._load_model(checkpoint, **({"skip_mismatched_heads": True} if skip_mismatched_heads else {}))
        except ValueError as error:
            raise ValueError(f"{f}: {error}") from error
        checkpoint.pop("model", None)
        if model_only:
            return {}
        self._load_solver(f, checkpoint)
        return checkpoint

    def has_checkpoint(self) -> bool:
        """Whether save_dir has a `last_checkpoint`."""
        return bool(self.save_dir) and os.path.exists(os.path.join(self.save_dir, "last_checkpoint"))

    def get_checkpoint_file(self) -> str:
        """The file that `last_checkpoint` names, "" if there is no `last_checkpoint`.

        When that file is missing (the folder was moved) or torn: the file of the same name in save_dir, else the newest
        complete model_*.pth there; the log says so.

        Raises:
            FileNotFoundError: there is none of these.
        """
        if not self.has_checkpoint():
            return ""
        tag = os.path.join(self.save_dir, "last_checkpoint")
        with open(tag, encoding="utf-8", errors="replace") as file:
            last_saved = file.read().strip()
        if last_saved and is_complete(last_saved):
            return last_saved
        # split at both kinds of separators: the folder may come from another system
        beside = os.path.join(self.save_dir, re.split(r"[\\/]", last_saved)[-1])
        if last_saved and is_complete(beside):
            self.logger.info(f"{tag} names {last_saved}, which is not there; taking {beside}")
            return beside
        for candidate in self._numbered_checkpoints():
            if is_complete(candidate):
                self.logger.warning(
                    f"{tag} names {last_saved!r}, which is missing or torn; falling back to {candidate}"
                )
                return candidate
        raise FileNotFoundError(
            f"{tag} names {last_saved!r}, which is missing or torn, and there is no complete model_*.pth beside it. "
            "Put a checkpoint there, or remove last_checkpoint to start anew."
        )

    def _numbered_checkpoints(self) -> list[str]:
        """model_NUMBER.pth of save_dir, highest number first, then model_final.pth.

        By number, not by time: copying a folder changes times. The number before model_final because going on from
        there is right in any case.
        """
        numbered = [name for name in os.listdir(self.save_dir) if re.fullmatch(r"model_\d+\.pth", name)]
        numbered.sort(key=lambda name: int(re.search(r"\d+", name)[0]), reverse=True)
        return [os.path.join(self.save_dir, name) for name in [*numbered, "model_final.pth"]]

    def tag_last_checkpoint(self, last_filename: str) -> None:
        """Makes `last_checkpoint` name this file, atomically."""
        with atomic_write(os.path.join(self.save_dir, "last_checkpoint")) as file:
            file.write(os.fsencode(last_filename))

    def _load_file(self, f) -> dict:
        """The file's dict, with the tensors under "model"."""
        return read_checkpoint(f)

    def _load_model(self, checkpoint: dict, skip_mismatched_heads: bool = False) -> None:
        self._copy_weights(checkpoint, skip_mismatched_heads, check=None)

    def _copy_weights(self, checkpoint: dict, skip_mismatched_heads: bool, check) -> None:
        self.report = load_state_dict(
            _unwrapped(self.model),
            checkpoint.pop("model"),
            check=check,
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
                    "config that wrote the file; or take its weights only, with "
                    f"`python tools/remove_solver_states.py {f}` or load(..., model_only=True)."
                ) from error


class DetectronCheckpointer(Checkpointer):
    """Checkpointer for detectors: knows catalog:// and http names and Caffe2 files, and wants the whole backbone.

    As the plain one, it reads the dialects of checkpoint_dialects: the forks', detectron2's, mmdetection's, timm's and
    torchvision's names.

    Args:
        cfg: MODEL.BACKBONE.CONV_BODY is read for Caffe2 files, MODEL.CONVENTION for a warning.

    A file whose tensors do not fill `backbone.body` is refused with a ValueError that shows both sides' names; heads
    that it lacks stay as they were built and are reported.
    """

    def __init__(self, cfg, model, optimizer=None, scheduler=None, save_dir="", save_to_disk=None, logger=None):
        super().__init__(model, optimizer, scheduler, save_dir, save_to_disk, logger)
        self.cfg = cfg

    def _load_file(self, f) -> dict:
        f = os.fspath(f)
        if f.startswith("catalog://"):
            # not at the top: the config package is not needed to load a plain file
            from maskrcnn_benchmark.config.paths_catalog import ModelCatalog

            url = ModelCatalog.get(f[len("catalog://") :])
            self.logger.info(f"{f} points to {url}")
            f = url
        if f.startswith(("http://", "https://")):
            cached = cache_url(f)
            self.logger.info(f"url {f} cached in {cached}")
            f = cached
        return load_c2_format(self.cfg, f) if f.endswith(".pkl") else super()._load_file(f)

    def _load_model(self, checkpoint: dict, skip_mismatched_heads: bool = False) -> None:
        self._copy_weights(checkpoint, skip_mismatched_heads, check=check_body)
        wanted, has = self.report.convention, self.cfg.MODEL.get("CONVENTION")
        heads = any(key.startswith("roi_heads.") for key in self.report.matched)
        if wanted and heads and has not in (None, wanted):
            self.logger.warning(
                f"The file is {wanted}'s, which computes a little differently, and MODEL.CONVENTION is {has!r}: set it "
                f"to {wanted!r}, and INPUT.PIXEL_MEAN and PIXEL_STD to the file's, to get what it was published with."
            )
