"""Views of frames: what they say of themselves is what they give, however they are asked."""

from collections.abc import Callable

import numpy as np
import pytest

from ptychow.detector import Preparation
from ptychow.errors import InputError
from ptychow.frame_views import FrameView, NonNegativeFrames, RearrangedFrames, ScaledFrames, SquaredFrames
from ptychow.prepared import PreparedFrames
from ptychow.scan import Frames

VIEWS: dict[type[FrameView], Callable[[Frames], FrameView]] = {
    RearrangedFrames: lambda frames: RearrangedFrames(frames, transposed=True, shifted=True),
    SquaredFrames: SquaredFrames,
    NonNegativeFrames: NonNegativeFrames,
    ScaledFrames: lambda frames: ScaledFrames(frames, np.linspace(0.5, 2, len(frames[:]))),
    PreparedFrames: lambda frames: PreparedFrames(frames, Preparation(transform="raw", scale="none", crop=4)),
}


def test_every_view_is_tested() -> None:
    assert set(VIEWS) == set(FrameView.__subclasses__())


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("kind", VIEWS)
def test_shape_dtype_and_every_index(kind: type[FrameView], dtype: type[np.generic]) -> None:
    stored = np.random.default_rng(0).poisson(5, (7, 6, 8)).astype(dtype)
    view = VIEWS[kind](stored)
    whole = view[:]
    assert (whole.shape, whole.dtype) == (view.shape, view.dtype)
    assert np.array_equal(view[3], whole[3])
    assert np.array_equal(view[np.array([6, 0, 0])], whole[[6, 0, 0]])


def test_values() -> None:
    frames = np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)
    turned = RearrangedFrames(frames, transposed=True, shifted=True)[:]
    assert np.array_equal(turned, np.fft.fftshift(frames.transpose(0, 2, 1), axes=(1, 2)))
    assert np.array_equal(NonNegativeFrames(frames)[:], np.where(frames > 0, frames, 0))
    assert np.allclose(SquaredFrames(abs(frames))[:], frames**2)
    scaled = ScaledFrames(frames, np.array([1.0, 2.0, 3.0]))
    assert np.allclose(scaled[2], 3 * frames[2])


def test_amplitudes_are_not_negative() -> None:
    with pytest.raises(InputError, match="no amplitudes"):
        SquaredFrames(np.full((1, 2, 2), -1.0))[:]
