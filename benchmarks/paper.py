"""The paper's tables and figures, on the twin of its data set or on the published files. Writes docs/results/paper.md.

    python benchmarks/paper.py                          # everything that is not there yet, then the page
    python benchmarks/paper.py --minutes 60             # as much of it as an hour allows
    python benchmarks/paper.py --data FOLDER --scale full --recipes paper     # the published PtychoNN files
    python benchmarks/paper.py --report-only            # the page from what has been trained

Trainings come in the order of what they are needed for (`paper_plan.py`); each leaves a JSON in docs/results/paper/ and
is never repeated. A training that is stopped goes on from its last epoch: `--resume` is what always happens.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import time
from pathlib import Path

import torch

from common import is_done
from paper_data import TWIN, open_source
from paper_networks import MAIN
from paper_page import write_page
from paper_plan import SCALES, Training, plan
from paper_run import OutOfTimeError, run
from ptychow.datasets import cache_folder

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    scale, source = SCALES[options.scale], open_source(options.data)
    recipes = options.recipes if source.has_probe else [name for name in options.recipes if name == "paper"]
    place = f"{source.name}_{scale.name}"
    folder, cache = options.output / "paper" / place, cache_folder() / "paper" / place
    wanted = plan(scale, networks=options.networks, recipes=recipes, seeds=options.seeds)
    if not options.report_only:
        deadline = time.monotonic() + 60 * options.minutes
        for training in chosen(wanted, options.part, options.only):
            result = folder / f"{training.name}.json"
            if result.exists():
                settings = training.settings(scale, json.loads(result.read_text())["pairs"])
                assert is_done(result, {"recipe": settings.model_dump()})
                continue
            if time.monotonic() > deadline:
                break
            print(training.name, flush=True)
            try:
                run(training, scale, source, result, cache, deadline)
            except OutOfTimeError:
                break
    page = write_page(options.output, place, source, scale, plan(scale, recipes=recipes), folder, cache)
    print(f"wrote {page}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=TWIN, help=f"{TWIN}, or a folder with PtychoNN's files.")
    parser.add_argument("--scale", default="small", choices=SCALES)
    parser.add_argument("--networks", nargs="+", default=list(MAIN), choices=MAIN)
    parser.add_argument("--recipes", type=lambda text: text.split(","), default=["paper", "ptychow"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="0/1", help="k/n: only every n-th training, from the k-th.")
    parser.add_argument("--only", default="*", help="Only trainings whose name matches, such as 'paper_w1_*'.")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="Stop then, to go on another time.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--resume", action="store_true", help="Go on where it stopped; this always happens.")
    parser.add_argument("--report-only", action="store_true", help="Only write the page from the JSONs there are.")
    return parser.parse_args()


def chosen(wanted: list[Training], part: str, pattern: str) -> list[Training]:
    """Every n-th training from the k-th (`part` "k/n") of those whose name matches."""
    first, step = (int(number) for number in part.split("/"))
    return [training for training in wanted if fnmatch.fnmatch(training.name, pattern)][first::step]


if __name__ == "__main__":
    main()
