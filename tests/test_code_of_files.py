"""Every place that could run what a file says is named in CONTRIBUTING.md, with why it does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Calls and modules that make code of data, or run another program.
BUILTINS = {"eval", "exec", "compile", "__import__"}
NAMES = {
    "instantiate", "get_object", "get_class", "get_method", "import_module", "find_spec",
    "spec_from_file_location", "run_path", "run_module", "Popen", "posix_spawn", "unsafe_load",
    "full_load", "dlopen", "create_subprocess_exec", "create_subprocess_shell",
}  # fmt: skip
MODULES = {
    "pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "subprocess",
    "ctypes", "runpy", "imp", "multiprocessing",
}  # fmt: skip
OF_MODULES = {  # calls that are harmless of other modules
    "os": {"system", "popen", "fork", "execv", "execve", "execvp", "execvpe", "spawnv"},
    "torch": {"load", "compile", "hub"}, "np": {"load"}, "numpy": {"load"},
    "yaml": {"load", "load_all"}, "jit": {"load"},
}  # fmt: skip


def found_in(source: str) -> set[str]:
    """The names of such places in a file's source."""
    return set(_found(ast.parse(source)))


def _found(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in MODULES:
                yield str(node.module)
            yield from (each.name for each in node.names if each.name in NAMES)
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield node.id
        elif isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else None
            owner = node.value.id if isinstance(node.value, ast.Name) else owner
            if node.attr in NAMES:
                yield node.attr
            elif owner in OF_MODULES and node.attr in OF_MODULES[owner]:
                yield f"{owner}.{node.attr}"


def named() -> dict[str, set[str]]:
    """File and calls of each row of the table in CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Code never comes from a file", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `([^`]+\.py)` \| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
    assert all(reason.strip() for _, _, reason in rows)
    return {file: set(re.findall(r"`([^`]+)`", calls)) for file, calls, _ in rows}


def test_no_place_is_unnamed_and_no_name_is_without_its_place() -> None:
    files = {
        path.relative_to(ROOT).as_posix(): found_in(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "asr").rglob("*.py"))
    }
    assert {file: calls for file, calls in files.items() if calls} == named()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import pickle", {"pickle"}),
        ("def f():\n    from subprocess import run", {"subprocess"}),
        ("from hydra.utils import instantiate as make", {"instantiate"}),
        ("import hydra\nhydra.utils.instantiate(x)", {"instantiate"}),
        ("import importlib\nimportlib.import_module(name)", {"import_module"}),
        ("eval(text)", {"eval"}),
        ("f = exec", {"exec"}),
        ("torch.load(path)", {"torch.load"}),
        ("import numpy as np\nnp.load(path)", {"np.load"}),
        ("torch.jit.load(path)", {"jit.load"}),
        ("yaml.load(text)", {"yaml.load"}),
        ("os.system(text)", {"os.system"}),
        ("comparison.system", set()),
        ("model.eval()\nre.compile('x')\njson.load(file)", set()),
    ],
)
def test_the_finder_finds(source: str, expected: set[str]) -> None:
    assert found_in(source) == expected
