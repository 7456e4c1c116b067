"""The networks by name. Importing this package does not import torch; building a network does.

To add a network: write one file with a subclass of `ptychow.networks.base.PatternNetwork`, and add its line
to `NETWORKS`. The tests run over the registry.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ptychow.errors import InputError

if TYPE_CHECKING:
    from ptychow.networks.base import PatternNetwork


@dataclass(frozen=True)
class NetworkSpec:
    """A network that can be built by name.

    title: a few words for tables and help.
    module, factory: where its factory is; its keyword arguments are the network's settings.
    paper_parameters, paper_flops: Table 5 of Xing et al. 2024, None for networks the paper does not have.
    """

    title: str
    module: str
    factory: str
    paper_parameters: float | None = None
    paper_flops: float | None = None

    def load(self) -> Callable[..., PatternNetwork]:
        """The factory; imports torch."""
        return getattr(import_module(self.module), self.factory)

    def settings(self) -> dict[str, Any]:
        """Names and default values of the settings; imports torch."""
        return {name: parameter.default for name, parameter in inspect.signature(self.load()).parameters.items()}


_WNET, _FAST = "ptychow.networks.wnet", "ptychow.networks.fast"
NETWORKS: dict[str, NetworkSpec] = {
    "ptychonn": NetworkSpec(
        "PtychoNN, the baseline",
        "ptychow.networks.ptychonn",
        "PtychoNN",
        paper_parameters=1247e3,
        paper_flops=154.86e9,
    ),
    "w1": NetworkSpec("W1, the paper's network", _WNET, "w1", paper_parameters=1780e3, paper_flops=60.77e9),
    "w2": NetworkSpec("W2, the most accurate", _WNET, "w2", paper_parameters=6656e3, paper_flops=435.99e9),
    "w3": NetworkSpec("W3, the smallest", _WNET, "w3", paper_parameters=103e3, paper_flops=10.77e9),
    "w3f": NetworkSpec("W3-fast, the fastest", _FAST, "W3Fast"),
    "wc": NetworkSpec("WC, made for ptychow calibrate", _FAST, "wc"),
}


def build(name: str, *, amplitude_max: float = 1.0, **settings: Any) -> PatternNetwork:
    """The network `name`, with fresh weights drawn from torch's global random state, in training mode.

    amplitude_max: largest amplitude the polar heads can give. The other settings are the network's own;
    ``build(name, **network.settings)`` makes the same network again.
    Raises InputError for a name or a setting that does not exist, a value of another type than the setting's default,
    or an impossible one.
    """
    if name not in NETWORKS:
        raise InputError("unknown network", field="network", found=name, expected=", ".join(NETWORKS))
    spec = NETWORKS[name]
    known = spec.settings()
    for setting, value in settings.items():
        if setting not in known:
            raise InputError(f"unknown setting of {name}", field=setting, expected=", ".join(known))
        if not _fits(value, known[setting]):
            found, expected = f"{value!r}", f"such as {known[setting]!r}"
            raise InputError(f"no such setting of {name}", field=setting, found=found, expected=expected)
    return spec.load()(amplitude_max=amplitude_max, **settings)


def _fits(value: object, default: object) -> bool:
    """Whether a setting's value is of its default's type; numbers of channels and blocks may be a list, as JSON has it.

    Where there is no default it is a row of such numbers, or None again.
    """
    if default is None or isinstance(default, tuple):
        return value is default or (isinstance(value, tuple | list) and all(type(item) is int for item in value))
    if isinstance(default, float):
        return type(value) in (float, int)
    return type(value) is type(default)
