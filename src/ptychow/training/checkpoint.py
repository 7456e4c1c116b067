"""The state of an unfinished training, in one safetensors file: nothing is unpickled on resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptychow.errors import InputError
from ptychow.files import to_json
from ptychow.tensor_files import read_tensors, write_tensors

AGAIN = "Train again without --resume"


def save_checkpoint(path: Path, tensors: dict[str, dict[str, Tensor]], optimizer: dict[str, Any], record: Any) -> None:
    """Write named groups of tensors, an optimizer's ``state_dict()`` and a JSON-able record, atomically."""
    flat = {f"{group}/{name}": value for group, values in tensors.items() for name, value in values.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, state in optimizer["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                flat[f"optimizer/{index}/{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    metadata = {
        "record": to_json(record, indent=None),
        "optimizer": to_json({"plain": plain, "param_groups": optimizer["param_groups"]}, indent=None),
    }
    write_tensors(path, flat, metadata)


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], Any]:
    """What `save_checkpoint` was given. Raises InputError for a file that is none."""
    flat, metadata = read_tensors(path, "training checkpoint", AGAIN)
    try:
        record, saved = json.loads(metadata["record"]), json.loads(metadata["optimizer"])
    except (KeyError, json.JSONDecodeError):
        raise InputError("not a training checkpoint", file=path, remedy=AGAIN) from None
    groups: dict[str, dict[str, Tensor]] = {}
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in saved["plain"].items()}
    for name, value in flat.items():
        group, _, rest = name.partition("/")
        if group == "optimizer":
            index, _, field = rest.partition("/")
            state.setdefault(int(index), {})[field] = value
        else:
            groups.setdefault(group, {})[rest] = value
    for parameters in saved["param_groups"]:
        if "betas" in parameters:  # JSON knows no tuples
            parameters["betas"] = tuple(parameters["betas"])
    return groups, {"state": state, "param_groups": saved["param_groups"]}, record


def clone_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of the module's weights and buffers that later training does not change."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
