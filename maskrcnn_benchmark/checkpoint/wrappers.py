"""Remove the prefixes of wrappers: torch.compile, DDP, FSDP, AveragedModel, Lightning, or a project's own model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch

from .load_report import shortened

# Modules that wrappers insert anywhere in a name; no model has modules with these names.
_INSERTED = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
# Tensors that wrappers store beside the model.
_OF_WRAPPERS = ("n_averaged",)
_DEEPEST_PREFIX = 5
_MOST_CANDIDATES = 24
_OUR_PARTS = ("backbone", "rpn", "roi_heads", "sem_seg_head", "aspp", "decoder")
_DETECTORS_START = ("backbone.", "rpn.", "roi_heads.", "proposal_generator.", "neck.")


def without_inserted(key: str) -> str:
    """Remove `_orig_mod.` and similar modules from a name, at any position."""
    return _INSERTED.sub("", key) if "_" in key else key


def strip_prefix(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Map each name to the name without `prefix`. If that name exists too, the prefixed one replaces it."""
    names = list(names)
    stripped = {name: name[len(prefix) :] for name in names if name.startswith(prefix) and name != prefix}
    taken = set(stripped.values())
    return {**{name: name for name in names if name not in stripped and name not in taken}, **stripped}


def strip_common_wrappers(state: Mapping[str, object]) -> dict[str, object]:
    """Remove prefixes that are known without the model: inserted modules, and "module." or "model." of all names."""
    state = {without_inserted(key) if isinstance(key, str) else key: value for key, value in state.items()}
    while True:
        inner = [key for key in state if isinstance(key, str) and key not in _OF_WRAPPERS]
        prefix = next((p for p in ("module.", "model.") if inner and all(key.startswith(p) for key in inner)), None)
        # names of mmdetection-vovnet's bodies start with "model." themselves
        if prefix is None or (
            prefix == "model." and not any(key[len(prefix) :].startswith(_DETECTORS_START) for key in inner)
        ):
            return state
        kept = {key: state[key] for key in _OF_WRAPPERS if key in state}
        state = {**{key[len(prefix) :]: state[key] for key in inner}, **kept}


def _candidates(file_state: Mapping[str, object], model_is_body: bool, fewest: int) -> list[str]:
    """Return prefixes of at least `fewest` names, the most frequent first, and shorter before longer ones."""
    counts: Counter = Counter()
    for key in file_state:
        end = -1
        for _ in range(_DEEPEST_PREFIX):
            end = key.find(".", end + 1)
            if end < 0:
                break
            counts[key[: end + 1]] += 1
    if not model_is_body:
        counts = Counter({p: n for p, n in counts.items() if p.split(".")[0] not in _OUR_PARTS})
    ordered = sorted(counts, key=lambda prefix: (-counts[prefix], prefix.count("."), prefix))
    return [prefix for prefix in ordered if counts[prefix] >= fewest][:_MOST_CANDIDATES]


def _differ(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], keys) -> bool:
    return any(not torch.equal(first[key], second[key]) for key in keys)


def find_prefix(
    model_state: Mapping[str, object],
    file_state: Mapping[str, torch.Tensor],
    matched: Callable[[dict[str, torch.Tensor]], set[str]],
) -> str:
    """Find the prefix to remove from the file's names so that most tensors of the model match; "" for none.

    A prefix is searched for only if less than half of the backbone (or of a model without one) matches without it.

    Args:
        model_state: the model's tensors.
        file_state: the file's tensors.
        matched: returns the model keys that match a state dict.

    Raises:
        ValueError: two prefixes match equally many tensors, such as student and teacher, and their values differ.
    """
    has_backbone = any(key.startswith("backbone.") for key in model_state)
    needed = {key for key in model_state if key.startswith("backbone.")} if has_backbone else set(model_state)
    found = matched(dict(file_state))
    if 2 * len(found & needed) >= len(needed):
        return ""
    best, best_found, rivals = "", found, []
    # a name shortened to "weight" would match every key that ends with it
    dots = min((key.count(".") for key in model_state), default=0)
    for prefix in _candidates(file_state, not has_backbone, fewest=max(1, len(needed) // 4)):
        if any(key.startswith(prefix) and key.count(".", len(prefix)) < min(dots, 1) for key in file_state):
            continue
        of_prefix = matched({new: file_state[old] for old, new in strip_prefix(file_state, prefix).items()})
        if 2 * len(of_prefix & needed) <= len(needed):
            continue
        if len(of_prefix) > len(best_found):
            best, best_found, rivals = prefix, of_prefix, []
        elif best and len(of_prefix) == len(best_found) and not prefix.startswith(best):
            rivals.append(prefix)
    for rival in rivals:
        inside = [key[len(best) :] for key in file_state if key.startswith(best)]
        both = [key for key in inside if rival + key in file_state]
        first, second = ({key: file_state[prefix + key] for key in both} for prefix in (best, rival))
        if _differ(first, second, both):
            raise ValueError(
                f"the file holds two different sets of weights that match, under {shortened(best)!r} and "
                f"{shortened(rival)!r}. Keep one of them, for example {{key: value for key, value in state.items() if "
                f"key.startswith({shortened(best)!r})}}"
            )
    return best
