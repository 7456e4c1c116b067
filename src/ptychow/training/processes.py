"""One training in several processes: on this machine, on several, or started by torchrun, accelerate or SLURM.

accelerate reads rank and size from the environment; whoever starts the processes has to set it. Here that is either
torch.distributed.run, which `launch` calls, or SLURM, whose variables are translated.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import MutableMapping, Sequence

from ptychow.errors import InputError

# Where processes of several machines meet, unless told otherwise.
PORT = 29500


def processes() -> int:
    """How many processes this training has."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    """Whether this process is the one that speaks and writes."""
    return int(os.environ.get("RANK", 0)) == 0


def adopt_slurm(environment: MutableMapping[str, str] = os.environ) -> None:
    """Translate SLURM's variables (`srun ptychow train ...`, one task a process) to torch's; nothing elsewhere.

    Raises InputError where the tasks cannot know where to meet.
    """
    # What srun sets: sbatch gives its script SLURM_NTASKS and SLURM_PROCID too, where nobody would answer.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if "WORLD_SIZE" in environment or tasks < 2:
        return
    if "MASTER_ADDR" not in environment:
        if int(environment.get("SLURM_STEP_NUM_NODES", 1)) > 1:
            raise InputError(
                "the tasks of several nodes do not know where to meet",
                field="MASTER_ADDR",
                remedy='export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            )
        environment["MASTER_ADDR"] = "127.0.0.1"
    environment.setdefault("MASTER_PORT", str(PORT))
    environment["WORLD_SIZE"], environment["RANK"] = str(tasks), environment["SLURM_PROCID"]
    environment["LOCAL_RANK"] = environment.get("SLURM_LOCALID", "0")


def launch(arguments: Sequence[str], devices: int, nodes: int = 1, meeting: str | None = None) -> int:
    """Run `ptychow ARGUMENTS` in `devices` processes here, of `nodes` machines; the exit code.

    meeting: HOST or HOST:PORT of one machine, the same on all: the command is given on each.
    Raises InputError for several machines without a place to meet.
    """
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={devices}", f"--nnodes={nodes}"]
    if nodes > 1:
        if meeting is None:
            raise InputError("several machines need a place to meet", field="--nodes", remedy="Add --meeting HOST:PORT")
        command += ["--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}", "--rdzv-id=ptychow"]
    else:
        command += ["--standalone"]
    # Without it every process takes all cores.
    threads = max(1, (os.cpu_count() or 1) // devices)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    finished = subprocess.run([*command, "-m", "ptychow", *arguments], env=environment, check=False)
    return finished.returncode


def require_equal_shares(batch: int, field: str) -> None:
    """Raise InputError unless every process takes equally many of a batch: its gradients would count unequally."""
    if batch % processes():
        raise InputError(
            "cannot be shared equally", field=field, found=batch, expected=f"a multiple of {processes()} processes"
        )
