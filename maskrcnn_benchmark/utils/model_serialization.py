"""Import path of the forks; see checkpoint.matching."""

from maskrcnn_benchmark.checkpoint.matching import (  # noqa: F401
    align_and_update_state_dicts,
    load_state_dict,
    strip_prefix_if_present,
)
