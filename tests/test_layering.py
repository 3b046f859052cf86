"""The import rule, read off the syntax tree of every file in asr/ (CONTRIBUTING.md, layout)."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "asr"

# What each stage of asr/ may import of the other stages. A stage is a folder or a file right
# below asr/; it may always import itself. "__init__" is the public face, `import asr`.
ALLOWED: dict[str, set[str]] = {
    "atomic_file": set(),
    "packed": set(),
    "untrusted": {"packed"},
    "user_yaml": {"untrusted"},
    "signatures": set(),
    "lock": set(),
    "memory": set(),
    "threads": set(),
    "word": set(),
    "finding": {"atomic_file", "untrusted", "text"},
    "audio_array": set(),
    "audio_file": {"audio_array"},
    "audio": {"memory", "audio_array", "audio_file"},
    "picture": set(),
    "number": set(),
    "replacement": set(),
    "text": {"number", "replacement"},
    "lexicon": {"untrusted", "text"},
    "features": set(),
    "augment": {"audio"},
    "compiled": set(),
    "model": {"compiled"},
    "metrics": set(),
    "decoder": {
        "atomic_file",
        "compiled",
        "packed",
        "untrusted",
        "threads",
        "memory",
        "text",
        "lexicon",
    },
    "pronounce": {"untrusted", "compiled", "decoder", "lexicon"},
    "data": {
        "pronounce",
        "finding",
        "atomic_file",
        "packed",
        "untrusted",
        "lock",
        "audio_file",
        "audio",
        "picture",
        "text",
        "lexicon",
        "features",
        "augment",
    },
    "model_spec": {"untrusted", "lexicon"},
    "speech_model": {"text", "lexicon", "model_spec"},
    "recognizer": {"untrusted", "memory", "features", "model", "model_spec", "speech_model"},
    "quantization": set(),
    "onnx_model": {"untrusted", "threads", "memory", "model_spec", "speech_model"},
    "model_file": {
        "model",
        "atomic_file",
        "packed",
        "untrusted",
        "text",
        "model_spec",
        "recognizer",
        "quantization",
        "starter_model",
    },
    "loading": {"speech_model", "recognizer", "onnx_model", "model_file", "starter_model"},
    "exporter": {
        "features",
        "model",
        "speech_model",
        "recognizer",
        "quantization",
        "onnx_model",
        "model_file",
    },
    "starter_model": {"untrusted"},
    "decoder_file": {
        "untrusted",
        "user_yaml",
        "signatures",
        "lexicon",
        "pronounce",
        "decoder",
        "speech_model",
    },
    "segment": set(),
    "emission": {"memory", "audio_file", "audio", "segment", "speech_model"},
    "subtitles": {"word"},
    "transcript": {"word", "text", "subtitles"},
    "stream": {"text", "audio_array", "decoder", "speech_model", "transcript"},
    "transcriber": {
        "untrusted",
        "word",
        "text",
        "audio_array",
        "audio_file",
        "audio",
        "emission",
        "decoder",
        "segment",
        "speech_model",
        "loading",
        "starter_model",
        "decoder_file",
        "transcript",
        "stream",
    },
    "aligner": {
        "untrusted",
        "word",
        "audio_array",
        "audio_file",
        "text",
        "segment",
        "emission",
        "decoder",
        "lexicon",
        "pronounce",
        "speech_model",
        "loading",
        "starter_model",
    },
    "pseudo_labels": {"data", "report", "transcript"},
    "serve": {
        "untrusted",
        "word",
        "audio_array",
        "audio_file",
        "audio",
        "text",
        "emission",
        "transcript",
        "stream",
        "transcriber",
        "data",
        "pseudo_labels",
    },
    "report": {"word", "finding", "atomic_file", "untrusted", "picture", "metrics"},
    "trainer": {
        "finding",
        "picture",
        "atomic_file",
        "untrusted",
        "memory",
        "data",
        "text",
        "features",
        "augment",
        "model",
        "decoder",
        "metrics",
        "recognizer",
        "model_file",
    },
}
LIBRARY = set(ALLOWED)
ALLOWED["__init__"] = LIBRARY
ALLOWED["cli"] = LIBRARY | {"__init__"}
ALLOWED["__main__"] = {"cli"}

# Packages that one stage alone may import, and folders that may import no other packages.
ONLY_FOR = {"hydra": "cli", "omegaconf": "cli"}
ONLY_PACKAGES = {
    "model.kernels": {"torch", "numpy", "numba", "llvmlite", "triton"},
    "model": {"torch"},
}

# What a package is installed as, where that is not what it is imported as.
INSTALLED_AS = {
    "flashlight": "flashlight-text",
    "hydra": "hydra-core",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}

# Names that say nothing of what is inside, so that everything ends up there.
FORBIDDEN_NAMES = {"utils", "common", "base"}


@dataclass(frozen=True)
class Import:
    """One imported module, `asr.model.lstm` or `torch.nn`, and the line that imports it."""

    target: str
    line: int


def module_name(package: Path, file: Path) -> str:
    """The dotted name of a file, which for the `__init__.py` of a folder is the folder's."""
    parts = [package.name, *file.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def stage_of(module: str) -> str:
    """The stage a module of the package belongs to, `__init__` for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(tree: ast.Module, module: str, *, is_package: bool, known: set[str]) -> set[Import]:
    """Every import at any depth of one file: in functions and under TYPE_CHECKING as well.

    Args:
        tree: The file's syntax tree.
        module: The file's dotted name, which relative imports start from.
        is_package: True for an `__init__.py`.
        known: All modules of the package; `from asr.model import lstm` is asr.model.lstm if
            that is one of them, and asr.model otherwise.
    """
    found: set[Import] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {Import(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = absolute_source(node, module, is_package=is_package)
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                found.add(Import(submodule if submodule in known else source, node.lineno))
        elif isinstance(node, ast.Call) and called_name(node) in {"import_module", "__import__"}:
            found |= {Import(name, node.lineno) for name in constant_strings(node.args[:1])}
    return found


def absolute_source(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """The module after `from`, with leading dots resolved against the importing module."""
    if node.level == 0:
        assert node.module is not None  # the grammar asks for a name where there are no dots
        return node.module
    parts = module.split(".")
    parents = parts[: len(parts) - node.level + is_package]
    return ".".join([*parents, node.module] if node.module else parents)


def called_name(call: ast.Call) -> str:
    """The last part of the name of a called function, empty for anything without a name."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def constant_strings(nodes: list[ast.expr]) -> Iterator[str]:
    """The strings among expressions."""
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def import_fault(module: str, target: str, root: str) -> str | None:
    """Why a module may not import another, or None where it may."""
    importer = stage_of(module)
    package = target.split(".")[0]
    if package == root:
        stage = stage_of(target)
        if stage == importer or stage in ALLOWED[importer]:
            return None
        return f"{importer} may import {sorted(ALLOWED[importer]) or 'nothing'} of {root}"
    if ONLY_FOR.get(package, importer) != importer:
        return f"only {ONLY_FOR[package]} may import {package}"
    for folder, allowed in ONLY_PACKAGES.items():
        if f"{module}.".startswith(f"{root}.{folder}."):
            if package in allowed | sys.stdlib_module_names:
                return None
            return f"{folder} may import {sorted(allowed)} and the standard library"
    return None


def find_circle(graph: Mapping[str, set[str]]) -> list[str] | None:
    """A list of modules of which each imports the next and the last is the first, if any."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str] | None:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return None
        for target in sorted(graph.get(module, ())):
            if circle := visit(target, [*path, module]):
                return circle
        done.add(module)
        return None

    for module in sorted(graph):
        if circle := visit(module, []):
            return circle
    return None


def find_faults(package: Path) -> list[str]:
    """Every breach of the rule in a package folder, one line each, with file and line number."""
    files = {module_name(package, file): file for file in sorted(package.rglob("*.py"))}
    faults: list[str] = []
    graph: dict[str, set[str]] = {}
    for module, file in files.items():
        where = file.relative_to(package.parent)
        if bad := FORBIDDEN_NAMES & set(module.split(".")):
            faults.append(f"{where}: name it for what is inside, not {bad.pop()!r}")
        stage = stage_of(module)
        if stage not in ALLOWED:
            faults.append(f"{where}: {stage!r} is new; add it to ALLOWED in tests/test_layering.py")
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
        is_package = file.name == "__init__.py"
        found = imports_of(tree, module, is_package=is_package, known=set(files))
        for entry in sorted(found, key=lambda entry: (entry.line, entry.target)):
            if fault := import_fault(module, entry.target, package.name):
                faults.append(f"{where}:{entry.line}: imports {entry.target}, but {fault}")
        graph[module] = {entry.target for entry in found} & set(files) - {module}
    if circle := find_circle(graph):
        faults.append("imports go in a circle: " + " -> ".join(circle))
    return faults


def outside_packages(package: Path) -> set[str]:
    """What a package folder imports from elsewhere, by the names that pip knows."""
    found: set[str] = set()
    for file in package.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
        module = module_name(package, file)
        entries = imports_of(tree, module, is_package=file.name == "__init__.py", known=set())
        found |= {entry.target.split(".")[0] for entry in entries}
    outside = found - sys.stdlib_module_names - {package.name}
    return {INSTALLED_AS.get(name, name).replace("_", "-").lower() for name in outside}


def test_asr_keeps_the_import_rule() -> None:
    faults = find_faults(PACKAGE)
    assert not faults, "\n" + "\n".join(faults)


def test_every_imported_package_is_declared() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in declared}
    undeclared = {package for package in outside_packages(PACKAGE) if package not in names}
    assert not undeclared, "asr/ imports what pyproject.toml does not ask for"


def test_contributing_shows_the_same_table() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ((?:`\w+` ?)+|nothing|everything) \|$", text, re.M)
    shown = {stage: set(re.findall(r"\w+", may)) - {"nothing"} for stage, may in rows}
    assert shown.pop("cli") == {"everything"}
    assert shown == {stage: ALLOWED[stage] for stage in LIBRARY}


def test_asr_is_found() -> None:
    assert (PACKAGE / "__init__.py").is_file(), "an empty folder would keep every rule"


# The checker itself, on packages made up for it.


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An empty package folder called asr."""
    folder = tmp_path / "asr"
    folder.mkdir()
    (folder / "__init__.py").touch()
    return folder


def write(package: Path, sources: Mapping[str, str]) -> None:
    """Writes made-up sources, by path below the package."""
    for name, source in sources.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param({"decoder/greedy.py": "from asr.text import tokenizer"}, id="a stage below"),
        pytest.param({"model/lstm.py": "import math, torch.nn"}, id="torch in model"),
        pytest.param({"model/lstm.py": "from . import ctc", "model/ctc.py": ""}, id="a sibling"),
        pytest.param({"cli/train.py": "import hydra\nfrom asr import text"}, id="cli"),
        pytest.param({"audio.py": "import soundfile"}, id="other packages"),
        pytest.param({"__init__.py": "from asr.audio import load"}, id="the public face"),
        pytest.param(
            {"model/__init__.py": "from asr.model.ctc import Loss", "model/ctc.py": "Loss = 1"},
            id="a package that shows a name of its module",
        ),
        pytest.param(
            {"text/a.py": "import asr.text.c", "text/b.py": "import asr.text.c", "text/c.py": ""},
            id="two roads to one module",
        ),
    ],
)
def test_checker_accepts(package: Path, sources: dict[str, str]) -> None:
    write(package, sources)
    assert find_faults(package) == []


def test_checker_names_packages_as_pip_does(package: Path) -> None:
    write(package, {"a.py": "import os, yaml.nodes, lightning_fabric\nfrom . import b"})
    assert outside_packages(package) == {"pyyaml", "lightning-fabric"}


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        pytest.param(
            {"model/lstm.py": "\nfrom asr.text import CharTokenizer"},
            "asr/model/lstm.py:2: imports asr.text, but model may import ['compiled'] of asr",
            id="a stage that is not below",
        ),
        pytest.param(
            {"text/a.py": "from asr import audio", "audio.py": ""},
            "imports asr.audio, but text may import ['number', 'replacement'] of asr",
            id="a stage as a name of the package",
        ),
        pytest.param(
            {"text/a.py": "from ..metrics import error_rate", "metrics/error_rate.py": ""},
            "imports asr.metrics.error_rate",
            id="a relative import",
        ),
        pytest.param(
            {"text/__init__.py": "from ..metrics import error_rate"},
            "imports asr.metrics",
            id="a relative import in an __init__",
        ),
        pytest.param(
            {"text/deep/__init__.py": "from ... import metrics", "metrics/__init__.py": ""},
            "imports asr.metrics",
            id="a relative import without a module",
        ),
        pytest.param(
            {"decoder/a.py": "def f():\n    import asr.model"},
            "asr/decoder/a.py:2: imports asr.model, but decoder may import "
            "['atomic_file', 'compiled', 'lexicon', 'memory', 'packed', 'text', 'threads', "
            "'untrusted']",
            id="inside a function",
        ),
        pytest.param(
            {"report/a.py": "if TYPE_CHECKING:\n    from asr.data import manifest"},
            "imports asr.data",
            id="under TYPE_CHECKING",
        ),
        pytest.param(
            {"report/a.py": "importlib.import_module('asr.data')"},
            "imports asr.data",
            id="by import_module",
        ),
        pytest.param(
            {"audio.py": "from asr import __version__"},
            "imports asr, but audio may import ['audio_array', 'audio_file', 'memory'] of asr",
            id="the public face from below",
        ),
        pytest.param(
            {"trainer/log.py": "from omegaconf import DictConfig"},
            "only cli may import omegaconf",
            id="a config outside cli",
        ),
        pytest.param(
            {"model/lstm.py": "import numpy as np"},
            "model may import ['torch'] and the standard library",
            id="another package in model",
        ),
        pytest.param(
            {"model/kernels/cpu_tile.py": "import numba, scipy"},
            "imports scipy, but model.kernels may import",
            id="another package in the kernels",
        ),
        pytest.param(
            {"__init__.py": "from asr.cli import main"}, "imports asr.cli", id="cli from the face"
        ),
        pytest.param(
            {"text/a.py": "import asr.text.b", "text/b.py": "def f():\n    from . import a"},
            "imports go in a circle: asr.text.a -> asr.text.b -> asr.text.a",
            id="a circle inside a stage",
        ),
        pytest.param(
            {"text/utils.py": ""}, "asr/text/utils.py: name it for what is inside", id="a drawer"
        ),
        pytest.param(
            {"common/a.py": ""}, "asr/common/a.py: name it for what is inside", id="a drawer folder"
        ),
        pytest.param(
            {"vad/energy.py": ""},
            "'vad' is new; add it to ALLOWED in tests/test_layering.py",
            id="a new folder",
        ),
        pytest.param({"vad.py": ""}, "'vad' is new; add it to ALLOWED", id="a new file"),
    ],
)
def test_checker_refuses(package: Path, sources: dict[str, str], expected: str) -> None:
    write(package, sources)
    assert expected in "\n".join(find_faults(package))
