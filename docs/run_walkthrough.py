"""Run the commands of the README as they stand, in an empty folder, and put what they print into it.

    python docs/run_walkthrough.py

Commands are the lines that begin with "$ " in its console blocks; whatever else a block holds is replaced by what the
command above it prints. Stops at the first command that fails. `PICTURES` are copied into docs/pictures.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CONSOLE = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
# What long commands say every half minute where there is no terminal: of no use to a reader.
PROGRESS = re.compile(r"^[\w ]+: \d+ of \d+, ")
# What the walk-through writes: where the README shows it.
PICTURES = {
    "ptychow-demo/reconstruction.png": "demo.png",
    "siemens-star_labelled_w3_evaluation.png": "siemens_star_w3.png",
}


def run(command: str, folder: Path) -> str:
    """What the command prints, standard error included, without trailing blanks. Exits where it fails."""
    print("$", command, flush=True)
    # The scans come from their public source, as they do for a reader.
    environment = {name: value for name, value in os.environ.items() if name != "PTYCHOW_DATA"}
    environment |= {
        "PTYCHOW_CACHE": str(folder / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
    }
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = [line.rstrip() for line in done.stdout.splitlines() if not PROGRESS.match(line)]
    if done.returncode:
        sys.exit("\n".join([*lines, f"exit code {done.returncode}: README.md is unchanged"]))
    return "\n".join(lines).strip("\n")


def main() -> None:
    """Run all blocks, then write the README."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def filled(block: re.Match[str]) -> str:
            commands = [line[2:] for line in block[0].splitlines() if line.startswith("$ ")]
            return "".join(f"$ {command}\n{run(command, folder)}\n" for command in commands)

        text = CONSOLE.sub(filled, README.read_text(encoding="utf-8"))
        for source, target in PICTURES.items():
            shutil.copy(folder / source, ROOT / "docs" / "pictures" / target)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
