"""Find the settings in which one configuration differs from another."""

from __future__ import annotations

from yacs.config import CfgNode


def changes(cfg: CfgNode, base: CfgNode) -> dict:
    """Return the settings of `cfg` that differ from `base`, as a tree; merging it into `base` gives `cfg`.

    Args:
        cfg, base: trees with the same keys. Keys that only `cfg` has are returned, too.
    """
    found = {}
    for key, value in cfg.items():
        if isinstance(value, CfgNode) and isinstance(base.get(key), CfgNode):
            inner = changes(value, base[key])
            if inner:
                found[key] = inner
        elif key not in base or value != base[key]:
            found[key] = list(value) if isinstance(value, tuple) else value
    return found
