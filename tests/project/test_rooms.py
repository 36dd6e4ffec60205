"""Which module may import which (DESIGN.md, Layout), read from the source; and what a bare import costs."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "streamllm"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Modules (or packages, with all in them) and everything of ours that they may import.
MAY_IMPORT = {
    "streamllm.records": set(),
    "streamllm.segment": {"streamllm.records"},
    "streamllm.blas": set(),
    "streamllm.check": set(),
    "streamllm.policies": {"streamllm.check", "streamllm.records", "streamllm.policies"},
    "streamllm.metrics": {"streamllm.records", "streamllm.segment", "streamllm.metrics"},
    "streamllm.translate": {"streamllm.records", "streamllm.segment"},
    "streamllm.tracking": {"streamllm.runs"},
    "streamllm.runs": {"streamllm", "streamllm.records", "streamllm.segment"},
    "streamllm.cache": set(),
}
NO_MLX = ("check", "records", "segment", "policies", "metrics", "translate", "tracking", "corpora", "experiment")
ABOVE = {"hydra", "omegaconf", "conf", "experiments", "run", "train", "scripts", "tests"}
HEAVY = ("wandb", "datasets", "transformers", "sacrebleu", "pandas", "matplotlib", "mlx_lm", "mlx", "torch")


def imports(tree: ast.AST, everywhere: bool = True) -> set[str]:
    """Dotted names that a module imports, inside functions too; what only type checkers see does not count."""
    names: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not everywhere:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {part for part in parts if part in MODULES}
            names |= modules | ({str(node.module)} if len(modules) < len(parts) else set())
        pending.extend(ast.iter_child_nodes(node))
    return names


def of(module: str, everywhere: bool = True) -> set[str]:
    return imports(ast.parse(MODULES[module].read_text("utf-8")), everywhere)


def inside(module: str, names: set[str]) -> bool:
    """Whether ``module`` is one of ``names``, or lies in a package among them."""
    return any(module == name or (name != "streamllm" and module.startswith(name + ".")) for name in names)


def test_reader_of_imports_sees_functions_and_skips_what_type_checkers_see():
    source = """
from typing import TYPE_CHECKING
import mlx.core as mx
if TYPE_CHECKING:
    import wandb
def later():
    from streamllm.records import Trace
    from streamllm import records
"""
    assert imports(ast.parse(source)) == {"typing", "mlx.core", "streamllm.records"}
    assert imports(ast.parse(source), everywhere=False) == {"typing", "mlx.core"}


@pytest.mark.parametrize("module", MODULES)
def test_library_imports_nothing_above_it(module: str):
    assert not {name.split(".")[0] for name in of(module)} & ABOVE


@pytest.mark.parametrize("module", [module for module in MODULES if inside(module, set(MAY_IMPORT))])
def test_module_imports_only_what_lies_below_it(module: str):
    (owner,) = [name for name in MAY_IMPORT if inside(module, {name})]
    ours = {name for name in of(module) if name.split(".")[0] == "streamllm"}
    assert {name for name in ours if not inside(name, MAY_IMPORT[owner])} == set()


@pytest.mark.parametrize("module", MODULES)
def test_model_does_not_know_the_loop_nor_the_session_the_model(module: str):
    below = {
        "streamllm.session": {"streamllm.model", "streamllm.translate", "streamllm.experiment"},
        "streamllm.model": {"streamllm.translate", "streamllm.experiment", "streamllm.runs"},
    }
    assert not {name for name in of(module) if inside(name, below.get(module, set()))}


@pytest.mark.parametrize("module", MODULES)
def test_only_programs_import_the_runner(module: str):
    if module not in ("streamllm.live", "streamllm.report", "streamllm.serve"):
        assert "streamllm.experiment" not in of(module)


@pytest.mark.parametrize("module", [m for m in MODULES if inside(m, {f"streamllm.{name}" for name in NO_MLX})])
def test_module_that_needs_no_model_imports_no_mlx(module: str):
    assert not {name for name in of(module) if name.split(".")[0] in ("mlx", "mlx_lm")}


def test_there_are_no_import_cycles():
    graph = {module: of(module) & set(MODULES) - {module, "streamllm"} for module in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_are_imported_where_they_are_used(module: str):
    allowed = {"mlx", "mlx_lm"}  # what a module of the model needs at once
    if inside(module, {"streamllm.plots"}):
        allowed |= {"matplotlib"}
    top = {name.split(".")[0] for name in of(module, everywhere=False)}
    assert not top & (set(HEAVY) - allowed)


@pytest.mark.parametrize("path", [path for name in ("run.py", "train.py") if (path := ROOT / name).exists()])
def test_program_imports_streamllm_before_anything_else_can_import_mlx(path: Path):
    body = ast.parse(path.read_text("utf-8")).body
    first = next(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "import streamllm"


@pytest.mark.parametrize("module", ["streamllm", "streamllm.experiment", "streamllm.policies", "streamllm.corpora"])
def test_import_is_light(module: str):
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


PROGRAM = f"""
import atexit, runpy, sys
atexit.register(lambda: print("imported", *[name for name in {HEAVY!r} if name in sys.modules]))
sys.path[0] = {str(ROOT)!r}
sys.argv = ["run.py", "dataset=sample", "dataset.limit=1", "tracker=none", *sys.argv[1:]]
runpy.run_path({str(ROOT / "run.py")!r}, run_name="__main__")
"""


def test_run_imports_what_it_uses(tmp_path: Path):
    """transformers comes with mlx_lm, which takes its tokenizers from there."""

    def imported(*arguments: str) -> set[str]:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return set(done.stdout.splitlines()[-1].split()) - {"imported"}

    assert imported() == {"mlx", "mlx_lm", "transformers", "sacrebleu"}
    assert imported() == {"mlx"}, "a finished run shows its results"
    assert imported("k=1", "model.path=absent") == {"mlx"}, "there is no such model"


def test_import_takes_less_than_a_second():
    """Processor time: a busy machine makes a clock on the wall wait."""
    code = "import time; import streamllm; print(time.process_time())"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(result.stdout) < 1
