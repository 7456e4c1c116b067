"""Published PtychoNN checkpoints (PyTorch state dicts) as Models.

Read from the weights: filters, levels, decoder widths, BatchNorm, one decoder or two. Names met in the wild: encoder,
decoder1 and decoder2 (or decoder_amplitude and decoder_phase), flat Sequentials with any numbering, with or without
DataParallel's prefix. A bias before a BatchNorm, and a BatchNorm after the last convolution, are folded away exactly.

Cherukara et al., Appl. Phys. Lett. 117, 044103 (2020); Babu et al., Nat. Commun. 14, 7059 (2023) for the smaller one.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ptychow.detector import Preparation
from ptychow.detector_fit import fit_preparation
from ptychow.errors import InputError
from ptychow.model import CHECKED_FRAMES, Model, ModelCard, software_versions
from ptychow.networks import build
from ptychow.scan import Geometry, Scan, spread

Inputs = Literal["counts", "standardised"]
# The published scripts set smaller counts to 0.
THRESHOLD = 3.0
BATCH_NORM_EPSILON = 1e-5
_NAMES = {"decoder_amplitude": "decoder1", "decoder_phase": "decoder2"}


@dataclass
class _Convolution:
    """A 3 x 3 convolution, and the BatchNorm after it where there is one; tensors by their name."""

    convolution: dict[str, Tensor]
    norm: dict[str, Tensor] | None = None

    @property
    def filters(self) -> int:
        return len(self.convolution["weight"])


def import_ptychonn(
    path: str | Path, scan: Scan | None = None, *, inputs: Inputs = "counts", size: int | None = None
) -> Model:
    """The Model that predicts what the published module with these weights predicts.

    scan: one of the instrument; its frame size, geometry, probe, count rate and mean pattern go into the Model's
    contract, without it they stay unknown. inputs: "counts" (values below 3 set to 0) or "standardised" (then the
    scan's mean frame subtracted, and divided by its deviation). size: side of the network input; the scan's, or 64.
    Raises InputError for a file that is no such state dict, and for standardised inputs without a scan.
    """
    network = _network(_state_dict(Path(path)), path)
    if inputs == "standardised" and scan is None:
        raise InputError("needs statistics of a data set", field="--inputs standardised", remedy="Add --scan SCAN")
    preparation = Preparation(transform="raw", threshold=THRESHOLD)
    counts, probe, frame_shape, geometry = None, None, (size or 64, size or 64), Geometry()
    mean_pattern = np.zeros(frame_shape, np.float32)
    if scan is not None:
        preparation = fit_preparation(scan, size=size, transform="raw", threshold=THRESHOLD, scale="none")
        chosen = spread(len(scan), CHECKED_FRAMES)
        frames = scan.frames[chosen]
        counts, mean_pattern = preparation.mean_counts(frames), preparation.apply(frames)[:, 0].mean(axis=0)
        probe = None if scan.probe is None else preparation.probe(scan.probe)
        frame_shape, geometry = scan.frame_shape, preparation.output_geometry(scan.geometry, scan.frame_shape)
        if inputs == "standardised":
            preparation = preparation.with_statistics_of(scan)
    card = ModelCard(
        network="ptychonn",
        settings=network.settings,
        preparation=preparation,
        frame_shape=frame_shape,
        geometry=geometry,
        gauge="absolute",
        counts_per_frame=counts,
        recipe={"name": "imported", "inputs": inputs},
        training={"imported_from": Path(path).name},
        data=[],
        versions=software_versions(),
    )
    return Model(card, network, probe, mean_pattern)


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by plain names. Only tensors and plain containers are unpickled."""
    if not path.is_file():
        raise InputError("no such file", file=path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError):
        raise InputError(
            "not a PyTorch state dict that can be read without running code",
            file=path,
            remedy="Save it with torch.save(model.state_dict(), FILE)",
        ) from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError("not a state dict", file=path, found=type(content).__name__, expected="names and tensors")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _network(state: dict[str, Tensor], path: str | Path) -> Any:
    """PtychoNN with these weights."""
    parts = {part: _convolutions(state, part, path) for part in ("encoder", "decoder1", "decoder2")}
    encoder, phase = parts["encoder"], parts["decoder2"]
    levels, batch_norm = len(encoder) // 2, bool(encoder) and encoder[0].norm is not None
    fits = (
        levels in (3, 4)
        and len(encoder) == 2 * levels
        and all(len(parts[name]) in (0, 2 * levels + 1) for name in ("decoder1", "decoder2"))
    )
    if not (fits and phase):
        found = ", ".join(f"{name} with {len(layers)} convolutions" for name, layers in parts.items())
        raise InputError("not a PtychoNN", file=path, found=found, expected="encoder with 6 or 8, decoder2 with 7 or 9")
    network = build(
        "ptychonn",
        nconv=encoder[0].filters,
        levels=levels,
        decoder_widths=[layer.filters for layer in phase[:-1:2]],
        batch_norm=batch_norm,
        phase_only=not parts["decoder1"],
        # A phase-only network says nothing of the amplitude: half of 2 is the 1 of a pure phase object.
        amplitude_max=1.0 if parts["decoder1"] else 2.0,
    )
    converted: dict[str, Tensor] = {}
    for part, layers in parts.items():
        module = getattr(network, part, None)
        if module is None:
            continue
        places = [index for index, layer in enumerate(module) if isinstance(layer, torch.nn.Conv2d)]
        for place, layer in zip(places, layers, strict=True):
            last = layer is layers[-1] and part != "encoder"
            converted.update(
                _tensors(f"{part}.{place}", f"{part}.{place + 1}", layer, keep_norm=batch_norm and not last)
            )
    try:
        network.load_state_dict(converted)
    except RuntimeError as error:
        raise InputError(f"not a PtychoNN ({str(error).splitlines()[-1].strip()})", file=path) from None
    return network.eval()


def _convolutions(state: dict[str, Tensor], part: str, path: str | Path) -> list[_Convolution]:
    """The convolutions of a flat Sequential in the order of their numbers, whatever these are."""
    layers: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        group, _, rest = name.partition(".")
        number, _, tensor = rest.partition(".")
        if _NAMES.get(group, group) != part:
            continue
        if not number.isdigit():
            raise InputError("not a PtychoNN", file=path, field=name, expected=f"{group}.NUMBER.NAME")
        layers.setdefault(int(number), {})[tensor] = value.float() if value.is_floating_point() else value
    convolutions: list[_Convolution] = []
    for place in sorted(layers):
        layer = layers[place]
        if layer.get("weight", torch.empty(0)).ndim == 4:
            convolutions.append(_Convolution(layer))
        elif "running_mean" in layer and convolutions:
            convolutions[-1].norm = layer
        else:
            raise InputError("not a PtychoNN", file=path, field=f"{part}.{place}", found=", ".join(layer))
    return convolutions


def _tensors(place: str, norm_place: str, layer: _Convolution, keep_norm: bool) -> dict[str, Tensor]:
    """A layer's tensors under our names: with its BatchNorm (and no bias), or with it folded into weight and bias."""
    weight, norm = layer.convolution["weight"], layer.norm
    bias = layer.convolution.get("bias", torch.zeros(len(weight)))
    if norm is None:
        return {f"{place}.weight": weight, f"{place}.bias": bias}
    if keep_norm:
        own = {**norm, "running_mean": norm["running_mean"] - bias}
        return {f"{place}.weight": weight} | {f"{norm_place}.{name}": value for name, value in own.items()}
    factor = norm["weight"] / torch.sqrt(norm["running_var"] + BATCH_NORM_EPSILON)
    shifted = (bias - norm["running_mean"]) * factor + norm["bias"]
    return {f"{place}.weight": weight * factor[:, None, None, None], f"{place}.bias": shifted}
