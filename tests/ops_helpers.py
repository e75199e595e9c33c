"""What the tests of the compiled ops share."""

import pytest

from maskrcnn_benchmark.layers import _native

needs_kernels = pytest.mark.skipif(
    not _native.declared(), reason=f"no compiled ops: {_native.REASONS.get('cpu')}; the twins are tested all the same"
)
