"""Imports run one way: every package ("room") is on a floor and imports only from lower floors and from itself."""

import ast
from pathlib import Path

from conftest import ROOT

PACKAGE = "maskrcnn_benchmark"
FLOORS = (
    ("forks",),
    ("utils",),
    ("config", "native"),
    ("layers",),
    ("structures",),
    ("modeling", "data", "solver", "visual", "checkpoint"),
    ("fast", "evaluation"),
    ("engine",),
    ("profiling", "doctor", "export", "check"),
)
# Files that only re-export an old import path. They may point up; nothing inside the package imports them.
FACES = (
    "data.datasets.evaluation",
    "data.datasets.evaluation.coco",
    "data.datasets.evaluation.coco.coco_eval",
    "data.datasets.evaluation.voc",
    "layers.batch_norm",
    "layers.dcn",
    "layers.dcn.deform_conv_func",
    "layers.dcn.deform_conv_module",
    "layers.misc",
    "modeling.compiled",
    "modeling.for_inference",
    "modeling.rpn.utils",
    "modeling.utils",
    "utils.build_ops",
    "utils.c2_model_loading",
    "utils.checkpoint",
    "utils.collect_env",
    "utils.cv2_util",
    "utils.model_serialization",
    "utils.model_zoo",
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """Map module names without the package's to files, for every module in a room."""
    names = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if parts:
            names[".".join(parts)] = path
    return names


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of the package that this one imports, also inside functions."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix(f"{PACKAGE}.") for alias in node.names if alias.name.startswith(f"{PACKAGE}.")
            }
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                parts = package.split(".") if package else []
                base = ".".join(parts[: len(parts) - node.level + 1])
                source = ".".join(part for part in (base, node.module) if part)
            elif node.module == PACKAGE:
                source = ""
            elif (node.module or "").startswith(f"{PACKAGE}."):
                source = node.module.removeprefix(f"{PACKAGE}.")
            else:
                continue
            for alias in node.names:
                submodule = f"{source}.{alias.name}".strip(".")
                found.add(submodule if submodule in known else source)
    return {module for module in found if module}


def test_every_room_is_on_a_floor():
    rooms = {name.split(".")[0] for name in modules()}
    assert not rooms - set(FLOOR), f"no floor for {sorted(rooms - set(FLOOR))}: add them to FLOORS"


def test_imports_point_down():
    known = modules()
    upward = []
    for name, path in known.items():
        if name in FACES:
            continue
        room = name.split(".")[0]
        for target in imports(name, path, known):
            other = target.split(".")[0]
            if other in FLOOR and other != room and FLOOR[other] >= FLOOR[room]:
                upward.append(f"{name} imports {target}")
    assert not upward, "\n".join(sorted(upward))


def test_nothing_inside_imports_a_face():
    known = modules()
    assert set(FACES) <= set(known)
    users = [
        f"{name} imports {target}"
        for name, path in known.items()
        if name not in FACES
        for target in imports(name, path, known)
        if target in FACES
    ]
    assert not users, "\n".join(users)


def test_faces_define_nothing():
    for name in FACES:
        tree = ast.parse(modules()[name].read_text())
        definitions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        assert not definitions, f"{name} defines {definitions[0].name}"
