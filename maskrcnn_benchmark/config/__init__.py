"""Configuration. `cfg` holds the defaults; clone it, then merge a file and the command line into the clone."""

from .checks import check_values
from .defaults import _C as cfg
from .loading import CfgNode
from .notes import notes

__all__ = ["cfg", "CfgNode", "check_values", "notes"]
