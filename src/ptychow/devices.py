"""Which device a calculation runs on, and how much memory there is for it."""

from __future__ import annotations

import re

from ptychow.errors import InputError


def choose_device(name: str, supported: tuple[str, ...] = ("cpu", "cuda", "mps", "xpu")) -> str:
    """The torch device type for `name`: "auto" takes the first accelerator that is there, else the CPU.

    Raises InputError for a device that is unknown, not supported here, or not present.
    """
    import torch

    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "xpu": torch.xpu.is_available(),
        "cpu": True,
    }
    usable = [device for device, there in present.items() if there and device in supported]
    if name == "auto":
        return usable[0]
    if not re.fullmatch(rf"({'|'.join(usable)})(:\d+)?", name):
        raise InputError("not available here", field="device", found=name, expected=", ".join(["auto", *usable]))
    return name


def has_bfloat16(device: str) -> bool:
    """Whether `choose_device(device)` calculates in bfloat16 itself. Processors that do not imitate it, a dozen times
    as slowly as they calculate in float32.
    """
    import torch

    if choose_device(device) != "cpu" or not torch.backends.mkldnn.is_available():
        return True
    # PyTorch's own tests ask this; there is no public way.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def free_memory() -> int:
    """Bytes of this machine's memory that can be taken without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)
