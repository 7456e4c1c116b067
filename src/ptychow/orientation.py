"""The eight ways a detector image can lie: flips and turns of the square."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


class Orientation(StrEnum):
    """One of the eight symmetries of the square, as an action on (row, column) images.

    Each names what is done to the stored image to bring it into PtychoW's frame (rows down, columns right).
    """

    IDENTITY = "identity"
    ROTATE_90 = "rotate-90"  # counter-clockwise, as numpy.rot90
    ROTATE_180 = "rotate-180"
    ROTATE_270 = "rotate-270"
    FLIP_ROWS = "flip-rows"  # upside down
    FLIP_COLUMNS = "flip-columns"  # left-right mirror
    TRANSPOSE = "transpose"
    ANTITRANSPOSE = "antitranspose"

    @property
    def actions(self) -> tuple[bool, bool, bool]:
        """(transpose, then flip rows, then flip columns)."""
        return _ACTIONS[self]

    @property
    def inverse(self) -> Orientation:
        """The orientation that undoes this one."""
        swaps = {Orientation.ROTATE_90: Orientation.ROTATE_270, Orientation.ROTATE_270: Orientation.ROTATE_90}
        return swaps.get(self, self)

    def then(self, other: Orientation) -> Orientation:
        """The single orientation that equals applying this one, then `other`."""
        corner = np.arange(4).reshape(2, 2)
        result = other.apply(self.apply(corner))
        return next(o for o in Orientation if np.array_equal(o.apply(corner), result))

    def apply(self, images: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn the last two axes of `images` (a view, no copy). The array as a whole turns: of an even-sized
        image pixel [H//2, W//2] does not stay in place; see `apply_about_zero_frequency`."""
        transpose, rows, columns = self.actions
        turned = np.swapaxes(images, -1, -2) if transpose else images
        if rows:
            turned = turned[..., ::-1, :]
        return turned[..., ::-1] if columns else turned

    def apply_to_positions(self, positions: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn positions (N, 2), (y, x), about (0, 0) as the images they lie on are turned; a copy."""
        transpose, rows, columns = self.actions
        turned = np.array(positions[:, ::-1] if transpose else positions)
        for axis, flipped in enumerate((rows, columns)):
            if flipped:
                turned[:, axis] = -turned[:, axis]
        return turned

    def apply_about_zero_frequency(self, images: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn the last two axes of `images` about pixel [H//2, W//2], which stays where it is.

        For even sizes the row at frequency -N/2 stays too: it stands for +N/2 as well.
        """
        _, rows, columns = self.actions
        turned = self.apply(images)
        for axis, flipped in ((-2, rows), (-1, columns)):
            if flipped and turned.shape[axis] % 2 == 0:
                turned = np.roll(turned, 1, axis=axis)
        return turned


_ACTIONS = {
    Orientation.IDENTITY: (False, False, False),
    Orientation.ROTATE_90: (True, True, False),
    Orientation.ROTATE_180: (False, True, True),
    Orientation.ROTATE_270: (True, False, True),
    Orientation.FLIP_ROWS: (False, True, False),
    Orientation.FLIP_COLUMNS: (False, False, True),
    Orientation.TRANSPOSE: (True, False, False),
    Orientation.ANTITRANSPOSE: (True, True, True),
}
