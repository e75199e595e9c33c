"""Configuration: `cfg` is the tree of defaults; copy it, then merge a file and the command line into the copy."""

from .checks import check_values
from .defaults import _C as cfg
from .loading import CfgNode
from .notes import notes

__all__ = ["cfg", "CfgNode", "check_values", "notes"]
