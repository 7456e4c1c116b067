"""The plan in docs/README.md: nothing imports from a floor above its own, and everything has a floor."""

import ast
import re
from pathlib import Path

import pytest

import ptychow

ROOT = Path(ptychow.__file__).parent
PLAN = Path(__file__).parents[1] / "docs" / "README.md"


def floors():
    """{module or package of ptychow: its floor} as the plan draws it; the ground is 0."""
    plan = PLAN.read_text(encoding="utf-8").split("## Rooms and floors")[1].split("```")[1]
    found, floor = {}, 99
    for line in plan.splitlines():
        if start := re.match(r" (top|\d|ground|beside)\b", line):
            floor = {"top": 9, "ground": 0, "beside": None}.get(start[1]) if not start[1].isdigit() else int(start[1])
        for name in re.findall(r"\b(\w+)(?:\.py|\*\.py|/)", line):
            if (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file() or name == "figures":
                found.setdefault(name, floor)
    return found


def imported(path):
    """Modules and packages right below ptychow that a file imports, at its top or later; not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typed = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typed or not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("ptychow"):
            continue
        parts = node.module.split(".")
        yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]


PLANNED = floors()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_from_above(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own.startswith(("_", "figures")):
        return
    assert own in PLANNED, f"{own} has no floor in docs/README.md"
    for name in imported(path):
        above = PLANNED.get(name)
        assert above is None or above <= PLANNED[own], f"{own} (floor {PLANNED[own]}) imports {name} (floor {above})"


def test_the_plan_is_read():
    assert PLANNED["cli"] == 9 and PLANNED["trust"] == 4 and PLANNED["stitch"] == 1 and PLANNED["scan"] == 0
