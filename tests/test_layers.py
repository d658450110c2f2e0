"""The rooms of the package, and that imports only point down: read from every import, also those inside functions."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import s2s_search

PACKAGE = Path(s2s_search.__file__).parent

# A room may import rooms of lower floors, and its own modules.
FLOORS = (
    ("errors", "statuses", "metrics", "interrupts", "machine"),
    ("hparams", "corpus"),
    ("nn", "spaces"),
    ("runs", "methods", "tf_variables"),
    ("training", "results"),
    ("display",),
    ("tuning", "report"),
    ("whatif",),
    ("cli", "trainable"),  # the latter is an old name of tuning's, for one release
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = (
    "errors",
    "statuses",
    "metrics",
    "interrupts",
    "machine",
    "tf_variables",
    "trainable",
)  # rooms of one module

ABOVE = ("ray", "torch", "pandas", "numpy", "scipy", "rich", "optuna", "plotly", "pyarrow")
MEASURES = ("rapidfuzz", "sacrebleu")  # what computes metrics: slow to import, late
# Packages that a module, or all modules of a room, must work without. The more particular line counts.
WITHOUT = {
    "errors": (*ABOVE, "yaml"),
    "statuses": (*ABOVE, "yaml"),
    "interrupts": (*ABOVE, "yaml"),
    "machine": (*ABOVE, "yaml"),
    "metrics": (*ABOVE, *MEASURES, "yaml"),
    "hparams": (*ABOVE, "yaml"),
    "corpus": (*ABOVE, "yaml"),
    "corpus.batches": ("ray", "pandas", "rich", "optuna", "yaml", "scipy"),
    "spaces": (*ABOVE, *MEASURES),
    "nn": ("ray", "pandas", "rich", "optuna", "yaml", "scipy"),
    "tf_variables": ("ray", "pandas", "rich", "optuna", "yaml", "scipy"),
    "methods": ("ray", "torch", "pandas", "rich", "optuna"),
    "methods.samplers": ABOVE,
    "methods.make": ("ray", "torch", "pandas", "rich", "optuna", "scipy"),
    "runs": ("ray", "torch", "rich", "optuna", "plotly", *MEASURES, "scipy"),
    "runs.folder": (*ABOVE, "yaml"),
    "runs.events": (*ABOVE, "yaml"),
    "runs.log": (*ABOVE, "yaml"),
    "runs.failures": (*ABOVE, "yaml"),
    "runs.state": ABOVE,
    "runs.explain": ABOVE,
    "runs.answers": ("ray", "torch", "pandas", "rich", "optuna", "plotly", "scipy"),
    "runs.checkpoints": ("ray", "torch", "pandas", "rich", "optuna", "plotly", "scipy"),
    "runs.debug_runs": ABOVE,
    "runs.trackers": (*ABOVE, "tensorboard", "mlflow", "wandb"),
    "training": ("ray", "pandas", "rich", "optuna", "scipy"),
    "training.footprint": ABOVE,
    "training.size": ABOVE,
    "results": ("ray", "torch", "rich", "optuna", "plotly", "scipy"),
    "results.importance": ("ray", "torch", "rich", "plotly", "scipy"),
    "results.optuna_study": ("ray", "torch", "rich", "plotly", "scipy"),
    "display": ("ray", "torch", "pandas", "numpy", "optuna", "yaml", "scipy"),
    "display.tables": ("ray", "torch", "optuna", "scipy"),
    "report": ("ray", "torch", "optuna", "scipy"),
    "report.page": ("ray", "torch", "pandas", "scipy"),
    "tuning": ("scipy",),
    "tuning.disk": ABOVE,
    "whatif": ("torch", "scipy"),
    "whatif.league": ("torch",),
    "whatif.plan": ABOVE,
    "whatif.courses": ABOVE,
    "whatif.probes": ABOVE,
    "whatif.rerun": ("ray", "torch", "scipy"),
    "whatif.curves": ("ray", "torch", "pandas", "rich", "scipy"),
    "whatif.tune_decoding": ("ray", "torch", "rich", "scipy"),
    "cli": (*ABOVE, *MEASURES),
    "trainable": (),
}


def modules() -> dict[str, Path]:
    """All modules by their names below the package; a door has the name of its room."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = (
            ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
            .removesuffix("__init__")
            .removesuffix(".")
        )
        found[name] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    return module.partition(".")[0]


def imported(path: Path) -> Iterator[str]:
    """The modules of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name their whole path"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == PACKAGE.name:
                yield rest if rest in MODULES else rest.rpartition(".")[0]


IMPORTS = {name: {other for other in imported(path) if other} for name, path in MODULES.items()}


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Names that are left when all that import nothing, or only such names, are taken away again and again."""
    left = {name: set(others) for name, others in arrows.items()}
    while True:
        leaves = {name for name, others in left.items() if not others & left.keys()}
        if not leaves:
            return sorted(left)
        left = {name: others for name, others in left.items() if name not in leaves}


def test_every_module_lies_in_a_room() -> None:
    assert {room(name) for name in MODULES if name} == set(FLOOR)
    assert {
        name for name in MODULES if name and "." not in name and MODULES[name].name != "__init__.py"
    } == set(FILES)


def test_imports_point_down() -> None:
    upward = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if room(name) != room(other) and FLOOR[room(name)] <= FLOOR[room(other)]
    ]
    assert upward == []


def test_no_circle() -> None:
    doors = {
        name for name, path in MODULES.items() if path.name == "__init__.py"
    }  # they import what they show
    assert circles({name: others for name, others in IMPORTS.items() if name not in doors}) == []
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == ["a", "b", "c"]


def test_ray_is_imported_in_one_room() -> None:
    for name, path in MODULES.items():
        text = path.read_text()
        assert room(name) == "tuning" or not ("import ray" in text or "from ray" in text), name


def test_the_fast_loops_are_imported_as_their_door_says() -> None:
    """The door of nn/fast has a table of its modules and of the modules outside that import them."""
    _, table = (ast.get_docstring(ast.parse(MODULES["nn.fast"].read_text())) or "").split(
        "Who imports what", 1
    )
    rows = re.findall(r"^ {4}(\w+) {2,}(.*)$", table.partition("\n\n")[0], re.MULTILINE)
    stated = {
        f"nn.fast.{name}": set(re.findall(r"(?:nn|training)\.\w+", text)) for name, text in rows
    }
    outside = {name: others for name, others in IMPORTS.items() if not name.startswith("nn.fast")}
    found = {
        module: {name for name, others in outside.items() if module in others}
        for module in MODULES
        if module.startswith("nn.fast.")
    }
    assert stated == found
    assert [name for name, others in outside.items() if "nn.fast" in others] == []


NEEDS = {
    name: WITHOUT[name] if name in WITHOUT else WITHOUT[room(name)] for name in MODULES if name
}


@pytest.mark.parametrize(
    "packages", sorted(set(NEEDS.values())), ids=lambda packages: "-".join(packages) or "all"
)
def test_modules_need_no_package_of_the_floors_above(packages: tuple[str, ...]) -> None:
    names = [name for name in NEEDS if NEEDS[name] == packages]
    lines = ["import sys", *(f"sys.modules[{package!r}] = None" for package in packages)]
    lines += [f"import s2s_search.{name}" for name in names]
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_debug_run_does_not_pay_for_torchs_compiler() -> None:
    """torch._dynamo takes a second to import; torch.optim's classes and others import it when they are used."""
    code = (
        "from s2s_search.cli import main; import sys; main(sys.argv[1:]); assert 'torch._dynamo' "
        "not in sys.modules"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "debug",
        "--corpus",
        "{name: copy, train: 9}",
        "--steps",
        "2",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
