"""The rooms of the library: which may import which, which may load MLX and mlx-lm, and who alone may do what.

All is read from the source, lazy and type-only imports included, but for what an import loads: that is tried.
"""

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "streamllm"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if (path.parent / "__init__.py").exists()  # else it is an example, which somebody copies
}
PROGRAMS = sorted([*ROOT.glob("*.py"), *(ROOT / "scripts").rglob("*.py")])

# The ground: small files that all rooms may import, each with what it may import itself.
GROUND: dict[str, set[str]] = {
    "records": set(),
    "units": set(),
    "check": set(),
    "files": set(),
    "checked": {"files"},
    "contents": {"files"},
    "prompt": {"units", "faces", "check"},  # a small room: the engine needs it
    "standins": set(),
    "faces": set(),
    "extras": set(),
    "machine": set(),
}
# Each room with its floor and the rooms that it may import, besides the ground. The command may import all.
ROOMS: dict[str, tuple[int, set[str]]] = {
    "policies": (1, set()),
    "metrics": (1, set()),
    "data": (1, set()),
    "cache": (1, set()),
    "cpu": (1, set()),
    "engine": (2, {"cache", "cpu"}),
    "runs": (2, {"metrics"}),
    "models": (3, {"engine", "cache"}),
    "tracking": (3, {"runs", "metrics"}),
    "plots": (3, {"runs", "metrics"}),
    "batching": (4, {"models", "engine", "cache", "cpu"}),
    "report": (4, {"plots", "runs", "metrics"}),
    "evaluation": (
        5,
        {"batching", "models", "engine", "tracking", "plots", "runs", "metrics", "policies", "data"},
    ),
    "training": (
        5,
        {"batching", "models", "engine", "cache", "cpu", "tracking", "runs", "metrics", "policies", "data"},
    ),
    "live": (5, {"batching", "models", "engine", "policies", "runs", "metrics"}),
}
ROOMS["cli"] = (6, set(ROOMS))
# They name what rooms have, and import it when asked.
FACES = {"streamllm", "streamllm.model", "streamllm.translate", "streamllm.client"}
ABOVE_ALL = FACES | {module for module in MODULES if module.endswith(".__main__")}  # the latter are programs

NO_MLX = {*GROUND, "policies", "metrics", "data", "runs", "tracking", "plots", "report", "evaluation"}
NO_MLX_LM = NO_MLX | {"cpu", "engine", "models", "live"}
# Modules that may load more than their room: what they are for needs a model, and they are imported when it is there.
MAY_LOAD = {
    "mlx": {
        "evaluation.api",
        "cli.calibrate",
        "cli.configured",
        "cli.distill",
        "cli.live",
        "cli.serve",
        "cli.train",
        "cli.train_head",
    },
    "mlx_lm": {
        "engine.paradigms.windows",
        "models.alignment_heads",
        "live.streams",
        "live.service",
        "live.agent",
        "live.connection",
        "live.corked",
        "live.mt",
        "live.server",
    },
}
HEAVY = ("wandb", "datasets", "transformers", "sacrebleu", "pandas", "matplotlib", "mlx_lm", "mlx", "torch")


# --- reading a source


@dataclass(frozen=True)
class Import:
    """One name that a module imports: of ours, the module is the one that has it."""

    module: str
    name: str | None = None  # None where the module itself is imported
    eager: bool = True  # when the module is imported, that is outside functions
    typing: bool = False  # only for type checkers


def imports(tree: ast.AST) -> list[Import]:
    """All imports of a source, and the modules of ours that it names in strings, as lazy faces do."""
    found: list[Import] = []

    def visit(node: ast.AST, eager: bool, typing: bool) -> None:
        match node:
            case ast.Import():
                found.extend(Import(alias.name, None, eager, typing) for alias in node.names)
            case ast.ImportFrom():
                assert node.level == 0, "imports are absolute"
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    target = (inner, None) if inner in MODULES else (str(node.module), alias.name)
                    found.append(Import(*target, eager, typing))
            case ast.Constant(value=str() as value) if value in MODULES and MODULES[value].name != "__init__.py":
                found.append(Import(value, None, False, typing))
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
                for child in node.body:
                    visit(child, False, True)
                for child in node.orelse:
                    visit(child, eager, typing)
            case _:
                inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                for child in ast.iter_child_nodes(node):
                    visit(child, eager and not inside, typing)

    visit(tree, True, False)
    return found


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def of(module: str) -> list[Import]:
    return imports(parsed(MODULES[module]))


def ours(module: str) -> set[str]:
    """The modules of ours that a module imports, whenever."""
    return {one.module for one in of(module) if one.module.split(".")[0] == "streamllm"}


def room(module: str) -> str:
    """The room of a module, or the ground file that it is; "streamllm" is the package itself."""
    return module.split(".")[1] if "." in module else module


def in_room(name: str) -> list[str]:
    """The modules of a room, or the ground file."""
    return [module for module in MODULES if module != "streamllm" and room(module) == name]


def test_the_reader_of_imports_tells_when_each_is_imported() -> None:
    source = """
from typing import TYPE_CHECKING
import mlx.core as mx
if TYPE_CHECKING:
    import wandb
def later():
    from streamllm.records import Trace
    from streamllm import records
FACE = {"read_config": "streamllm.runs.load"}
"""
    assert imports(ast.parse(source)) == [
        Import("typing", "TYPE_CHECKING"),
        Import("mlx.core"),
        Import("wandb", eager=False, typing=True),
        Import("streamllm.records", "Trace", eager=False),
        Import("streamllm.records", eager=False),
        Import("streamllm.runs.load", eager=False),
    ]


# --- directions


def test_every_module_is_in_a_room_or_of_the_ground() -> None:
    assert {room(module) for module in MODULES if module not in ABOVE_ALL} == {*ROOMS, *GROUND}
    assert all(len(in_room(name)) == 1 for name in GROUND if name != "prompt")
    assert all(MODULES[f"streamllm.{name}"].name == "__init__.py" for name in ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_may_import_rooms_of_lower_floors_only(name: str) -> None:
    floor, lower = ROOMS[name]
    assert all(ROOMS[other][0] < floor for other in lower)


@pytest.mark.parametrize("name", [*GROUND, *ROOMS])
def test_a_room_imports_only_what_its_row_names(name: str) -> None:
    allowed = GROUND[name] if name in GROUND else {*GROUND, *ROOMS[name][1]}
    modules = [module for module in in_room(name) if module not in ABOVE_ALL]
    found = {(module, other) for module in modules for other in ours(module) if other != "streamllm"}
    assert sorted(pair for pair in found if room(pair[1]) not in allowed | {name}) == []


def test_no_module_imports_a_program() -> None:
    assert [module for module in MODULES if any(other.endswith(".__main__") for other in ours(module))] == []


def test_evaluation_loads_figures_only_when_it_draws() -> None:
    found = [one for module in in_room("evaluation") for one in of(module)]
    assert [one for one in found if one.module.startswith("streamllm.plots") and one.eager] == []


def test_a_memory_knows_of_the_engine_the_forward_alone() -> None:
    """And what a forward notes of attention and of states, and the head that is asked about these; what it may not be
    asked or give, and how much at a time; what sentences begin with; and how streams live on, a record."""
    names = ("attention", "finite", "forward", "head", "living_on", "portions", "positions", "prefix", "write_head")
    below = {f"streamllm.engine.{name}" for name in names}
    for module in MODULES:
        if module.startswith("streamllm.engine.paradigms"):
            engine = {other for other in ours(module) if room(other) == "engine"}
            assert {other for other in engine - below if not other.startswith("streamllm.engine.paradigms")} == set()


def test_there_are_no_import_cycles() -> None:
    graph = {module: ours(module) & set(MODULES) - {module, "streamllm"} for module in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")


def test_the_package_is_imported_by_its_modules_for_its_version_and_its_blas_only() -> None:
    """Its lazy names, and the aliases of before 0.2, are for others."""
    assert [module for module in MODULES if ours(module) & (FACES - {"streamllm"})] == []
    for module, path in MODULES.items():
        named = {one.name for one in of(module) if one.module == "streamllm"}
        assert named <= {None, "__version__", "BLAS"}, module
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and None in named and ast.unparse(node.value) == "streamllm":
                assert node.attr == "BLAS" or node.attr.startswith("__"), module


@pytest.mark.parametrize("name", [*ROOMS, "engine.paradigms"])
def test_a_room_begins_with_what_it_holds_and_imports_nothing_eagerly(name: str) -> None:
    tree = parsed(MODULES[f"streamllm.{name}"])
    assert ast.get_docstring(tree)
    assert {one.module for one in imports(tree) if one.eager} <= {"typing", "streamllm.faces"}


def test_nothing_lies_at_the_top_level_but_the_two_programs() -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["run.py", "train.py"]


# --- who alone may do what


def test_nothing_imports_the_studies() -> None:
    for path in [*MODULES.values(), *PROGRAMS]:
        assert "experiments" not in {one.module.split(".")[0] for one in imports(parsed(path))}, path
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert not re.search(r"_target_: *experiments\b", path.read_text("utf-8")), path


def test_the_library_imports_no_program_and_no_test() -> None:
    above = {"conf", "experiments", "run", "train", "scripts", "tests"}
    assert [(module, one) for module in MODULES for one in of(module) if one.module.split(".")[0] in above] == []


def test_only_the_command_imports_hydra() -> None:
    hydra = {"hydra", "omegaconf"}
    assert {room(module) for module in MODULES for one in of(module) if one.module.split(".")[0] in hydra} == {"cli"}


def test_few_files_know_what_is_fast_on_a_cpu() -> None:
    users = {module for module in MODULES if room(module) != "cpu" for one in ours(module) if room(one) == "cpu"}
    batches = {f"streamllm.batching.{name}" for name in ("in_numpy", "needed", "pool", "scheduler", "trial")}
    training = {f"streamllm.training.{name}" for name in ("loop", "loss", "unpadded")}
    assert users == {"streamllm", "streamllm.engine.forward", *training, *batches}
    assert {one for one in ours("streamllm") if room(one) == "cpu"} == {"streamllm.cpu.blas"}


def test_only_the_forward_calls_a_model_that_reads_and_writes() -> None:
    """Training's loss is another forward; two files of the cache try a model once, to see whether they fit it."""
    calls = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and "cache" in {keyword.arg for keyword in node.keywords}
    }
    probes = {"streamllm.cache.rotations", "streamllm.cache.quantised"}
    assert calls == {"streamllm.engine.forward", "streamllm.training.loss", *probes}


FOREIGN = {"_replace", "_return_value", "_freqs"}  # of named tuples, and of Hydra's JobReturn


def private_uses(tree: ast.AST) -> list[str]:
    """Private names of other files that a source uses: imported, or asked of another object than its own."""
    own: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.arg(arg=name):
                own.add(name)
    used: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom():
                used += [f"{node.module}.{alias.name}" for alias in node.names if private(alias.name)]
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr=name) if private(name) and name not in own | FOREIGN:
                used.append(ast.unparse(node))
    return used


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def test_the_reader_of_private_names_knows_its_own_from_those_of_others() -> None:
    source = """
from streamllm.runs import _line, line
class Cache:
    def __init__(self, other):
        self._kept = other._kept
        self._store(super()._inherited, other._stranger, other.__dict__)
"""
    assert private_uses(ast.parse(source)) == ["streamllm.runs._line", "other._stranger"]


def test_no_private_name_crosses_a_file() -> None:
    paths = [*MODULES.values(), *(ROOT / "experiments").rglob("*.py")]
    uses = {str(path.relative_to(ROOT)): private_uses(parsed(path)) for path in paths}
    assert {path: names for path, names in uses.items() if names} == {}


# --- what an import loads


def loaded_by(modules: list[str], heavy: tuple[str, ...]) -> list[str]:
    """Import the modules in one process, in this order; returns each with what of ``heavy`` it was first to load."""
    code = f"""
import sys
from importlib import import_module
seen = set()
for name in sys.argv[1:]:
    import_module(name)
    fresh = {{library for library in {heavy!r} if library in sys.modules}} - seen
    seen |= fresh
    if fresh:
        print(name, "loads", *sorted(fresh))
"""
    command = [sys.executable, "-c", code, *modules]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def test_rooms_that_need_no_model_load_no_mlx() -> None:
    """Nor does the command, before it knows that the run is not there yet."""
    modules = [module for module in MODULES if room(module) in {*NO_MLX, "cli"} or module in FACES]
    modules = [module for module in modules if module.removeprefix("streamllm.") not in MAY_LOAD["mlx"]]
    assert loaded_by(modules, ("mlx", "mlx_lm", "transformers", "torch")) == []


def test_rooms_load_mlx_lm_only_where_a_model_is_there() -> None:
    """It takes 0.8 s, since it loads transformers."""
    modules = [module for module in MODULES if room(module) in NO_MLX_LM]
    modules = [module for module in modules if module.removeprefix("streamllm.") not in MAY_LOAD["mlx_lm"]]
    assert loaded_by([*modules, "streamllm.cache.retention"], ("mlx_lm", "transformers", "torch")) == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    """But for MLX and mlx-lm, which a module of the model needs at once, and Matplotlib in the room of figures."""
    lazy = set(HEAVY) - {"mlx", "mlx_lm"}
    eager = {(module, one.module.split(".")[0]) for module in MODULES for one in of(module) if one.eager}
    assert {(room(module), name) for module, name in eager if name in lazy} == {("plots", "matplotlib")}


def test_importing_the_package_loads_a_blas_and_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import streamllm; print(*set(sys.modules) - before)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name for name in result.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names}
    cpu = {"streamllm.cpu", "streamllm.cpu.blas", "streamllm.cpu.enabled"}
    assert loaded <= {"streamllm", "streamllm.faces", *cpu}


@pytest.mark.parametrize("path", [ROOT / "run.py", ROOT / "train.py"], ids=lambda path: path.name)
def test_a_program_imports_streamllm_before_anything_else_can_import_mlx(path: Path) -> None:
    first = next(node for node in parsed(path).body if isinstance(node, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "import streamllm"


PROGRAM = f"""
import atexit, runpy, sys
atexit.register(lambda: print("imported", *[name for name in {HEAVY!r} if name in sys.modules]))
sys.path[0] = {str(ROOT)!r}
sys.argv = ["run.py", "dataset=sample", "dataset.limit=1", "tracker=none", *sys.argv[1:]]
runpy.run_path({str(ROOT / "run.py")!r}, run_name="__main__")
"""


def test_run_imports_what_it_uses(tmp_path: Path) -> None:
    """transformers comes with mlx_lm, which takes its tokenizers from there."""

    def imported(*arguments: str) -> set[str]:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return set(done.stdout.splitlines()[-1].split()) - {"imported"}

    assert imported() == {"mlx", "mlx_lm", "transformers", "sacrebleu"}
    assert imported() == {"mlx"}, "a finished run shows its results"
    assert imported("k=1", "model.path=absent") == {"mlx"}, "there is no such model"
