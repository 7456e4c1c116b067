"""What every engine offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray


class Engine(ABC):
    """A Model's network, ready to run.

    name: in `ptychow.engines.ENGINES`. precision: "fp32", "bf16" or "int8", of the layers; heads are always fp32.
    device: where it runs, as the library calls it.
    """

    name: str
    precision: str
    device: str

    @abstractmethod
    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Complex patches (b, n, n) of prepared frames (b, 1, n, n), which any b, zero too, may be asked for."""
