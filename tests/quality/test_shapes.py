"""The run-time check of shapes and types is really on."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import modules_with_shapes


def test_modules_with_shapes_are_checked() -> None:
    assert "cgpt.baseline" in modules_with_shapes()


def test_wrong_shape_and_wrong_type_are_refused() -> None:
    from jaxtyping import TypeCheckError

    from cgpt.baseline import TokenStream

    offsets = np.array([0, 3], np.int64)
    assert TokenStream(np.array([1, 2, 3], np.uint16), offsets, 0).read(0, 5).shape == (5,)
    with pytest.raises(TypeCheckError):
        TokenStream(np.array([[1, 2, 3]], np.uint16), offsets, 0)
    with pytest.raises(TypeCheckError):
        TokenStream(np.array([1, 2, 3], np.float32), offsets, 0)
