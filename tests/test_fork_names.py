"""Every name that programs import from the forks exists and accepts the same arguments."""

import ast
import importlib
import inspect
import subprocess
import sys

import pytest
from conftest import ROOT

TABLE = ROOT / "tests" / "fork_names.txt"


def read_table() -> dict[str, list[str]]:
    """Read the table as a dict from modules to their lines."""
    modules = {}
    for line in TABLE.read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] != " ":
            module = line.strip()
            assert module not in modules, f"{module} comes twice"
            modules[module] = []
        else:
            modules[module].append(line.strip())
    return modules


MODULES = read_table()


def mismatches(name: str, line: str, found) -> list[str]:
    """Compare the arguments of a line with those of a callable."""
    expected = ast.parse(f"def f{line[line.index('(') :]}: pass").body[0].args
    has = inspect.signature(found).parameters
    flexible = {kind: any(p.kind == kind for p in has.values()) for kind in inspect._ParameterKind}
    positional = [p for p in has.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if positional and positional[0].name == "self":
        positional = positional[1:]
    problems = []
    defaults = [None] * (len(expected.args) - len(expected.defaults)) + expected.defaults
    for place, (argument, default) in enumerate(zip(expected.args, defaults, strict=True)):
        if place >= len(positional):
            if not flexible[inspect.Parameter.VAR_POSITIONAL]:
                problems.append(f"{name}: no argument {argument.arg} in place {place}")
            continue
        ours = positional[place]
        if default is None:
            continue
        if ours.name != argument.arg:
            problems.append(f"{name}: argument {place} is {ours.name}, in the forks {argument.arg}")
        elif ours.default is ours.empty:
            problems.append(f"{name}: {argument.arg} has no default")
        elif ours.default != eval(ast.unparse(default)):
            problems.append(
                f"{name}: {argument.arg} is {ours.default!r} by default, in the forks {ast.unparse(default)}"
            )
    for extra in positional[len(expected.args) :]:
        if extra.default is extra.empty and not expected.vararg:
            problems.append(f"{name}: {extra.name} has to be given, and is not in the forks")
    if expected.vararg and not flexible[inspect.Parameter.VAR_POSITIONAL]:
        problems.append(f"{name}: takes no *{expected.vararg.arg}")
    if expected.kwarg and not flexible[inspect.Parameter.VAR_KEYWORD]:
        problems.append(f"{name}: takes no **{expected.kwarg.arg}")
    return problems


@pytest.mark.parametrize("module", MODULES)
def test_module_has_the_names_and_arguments_of_the_forks(module):
    found = importlib.import_module(f"maskrcnn_benchmark.{module}")
    problems = []
    for line in MODULES[module]:
        name, _, arguments = line.partition("(")
        value = found
        for part in name.split("."):
            value = getattr(value, part, None)
            if value is None:
                problems.append(f"{name} is missing")
                break
        else:
            if arguments:
                problems += mismatches(name, line, value)
    assert not problems, "\n".join(problems)


CODE = """
import sys
import fcos_core
assert "torch" not in sys.modules
for module in {modules}:
    exec(f"import fcos_core.{{module}}")
    own = sys.modules["maskrcnn_benchmark." + module]
    assert sys.modules["fcos_core." + module] is own, module
    assert own.__spec__.name == own.__name__ == "maskrcnn_benchmark." + module, own.__spec__
from fcos_core.layers import nms, roi_align
assert callable(nms) and callable(roi_align)  # functions, though modules of these names have been imported since
exec("import maskrcnn_benchmark.structures.semantic_map")
from fcos_core.structures.semantic_map import SemanticMap
assert SemanticMap is maskrcnn_benchmark.structures.semantic_map.SemanticMap
try:
    import fcos_core.no_such_module
except ModuleNotFoundError as error:
    assert error.name == "fcos_core.no_such_module"
"""


def test_fcos_core_imports_the_same_modules_on_demand():
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(modules=list(MODULES))], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_module_of_fcos_core_runs_as_a_program():
    command = [sys.executable, "-m", "fcos_core.utils.collect_env"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "PyTorch" in done.stdout or "torch" in done.stdout
