"""How a live scan is received and reconstructed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptychow.stitching import Stitching


@dataclass(frozen=True)
class LiveSettings:
    """How to go about it.

    batch_size: frames for the network at a time. batch_seconds: how long a frame waits for others to fill its batch.
    settle_seconds: how long to wait for stragglers after the end. idle_seconds: silence after which a scan is over
    whose detector does not say so, or None: wait for ever. every: see `FrameQueue`. memory, disk, patch_disk: bytes for
    frames that wait, in memory and on disk, and for patches. keep_frames: keep every frame too, in as many bytes again
    as `disk` says.
    wait_for_start: hold the frames, as far as `memory` allows, until the detector has described them: it may come last.
    pixel_size: of the object, metres, where the detector does not know. scale, stitching, force: as `reconstruct`.
    """

    batch_size: int = 64
    batch_seconds: float = 0.05
    settle_seconds: float = 3.0
    idle_seconds: float | None = None
    every: int = 1
    memory: float = 256e6
    disk: float = 4e9
    patch_disk: float = 32e9
    keep_frames: bool = False
    wait_for_start: bool = False
    pixel_size: float | None = None
    scale: Literal["scan", "model"] = "scan"
    stitching: Stitching = "probe"
    force: bool = False
