import gc

import pytest

from maskrcnn_benchmark.utils.garbage_collection import without_garbage_collection


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_inside_and_as_before_afterwards(enabled):
    if not enabled:
        gc.disable()
    try:
        with pytest.raises(ValueError), without_garbage_collection():
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
