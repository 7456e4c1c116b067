"""Tensors and texts in one safetensors file: written atomically, and nothing is unpickled on reading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ptychow.errors import InputError
from ptychow.files import atomic_path, cannot_write


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], texts: dict[str, str]) -> None:
    """Write named tensors and texts. Raises PtychoWError where that fails."""
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(plain, temporary, texts)
        except SafetensorError as error:
            raise cannot_write(path, error) from None


def read_tensors(path: str | Path, what: str, remedy: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a file that should be `what`. Raises InputError where it is missing, damaged or foreign."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such {what}", file=path, remedy=remedy)
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            return {name: file.get_tensor(name) for name in file.keys()}, texts  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise InputError(f"not a {what}, or damaged ({error})", file=path, remedy=remedy) from None
