"""Shared parts of the tests of compiled ops."""

import pytest

from maskrcnn_benchmark.native import library

needs_kernels = pytest.mark.skipif(
    not library.declared(), reason=f"no compiled ops: {library.REASONS.get('cpu')}; the twins are tested anyway"
)
