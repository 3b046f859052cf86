"""Read what classes and functions take off their source: to import them would take seconds."""

from __future__ import annotations

import ast
import collections.abc
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Union

# What the names in annotations mean. Any other one is followed to where it is defined; what is
# there is an alias, or a class that no plain value is of.
TYPES: dict[str, Any] = {
    "Any": Any, "None": NoneType, "Path": Path, "bool": bool, "float": float, "int": int,
    "object": object, "str": str,
}  # fmt: skip
GENERICS: dict[str, Any] = {
    "Literal": Literal, "Mapping": collections.abc.Mapping, "Sequence": collections.abc.Sequence,
    "Union": Union, "list": list, "tuple": tuple,
}  # fmt: skip


class Object:
    """What is built of settings of its own, or cannot be given by settings at all."""


@dataclass(frozen=True)
class Parameter:
    """An argument of a class or a function.

    Attributes:
        kind: its type, as `asr.untrusted.checked` takes it.
        is_needed: it has no default.
    """

    kind: Any
    is_needed: bool


@cache
def parameters_of(target: str) -> dict[str, Parameter]:
    """Read the arguments of a class or a function of asr or of torch, by their names.

    Args:
        target: its dotted name: `asr.model.BiLstmCtc`.
    """
    module, _, name = target.rpartition(".")
    module, node = _definition(module, name)
    return _parameters(node, module)


def _parameters(node: ast.AST | None, module: str) -> dict[str, Parameter]:
    if isinstance(node, ast.ClassDef):
        by_name = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
        if "__init__" not in by_name:  # a dataclass, or a class without arguments
            fields: dict[str, Parameter] = {}
            for base in node.bases:
                home, parent = _definition(module, ast.unparse(base))
                fields |= _parameters(parent, home)
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and "init=False" not in ast.unparse(each):
                    kind = _kind(each.annotation, module)
                    fields[ast.unparse(each.target)] = Parameter(kind, each.value is None)
            return fields
        node = by_name["__init__"]
    if not isinstance(node, ast.FunctionDef):
        return {}
    found = node.args
    positional = found.posonlyargs + found.args
    defaults = [None] * (len(positional) - len(found.defaults)) + found.defaults
    pairs = [*zip(positional, defaults, strict=True)]
    pairs += zip(found.kwonlyargs, found.kw_defaults, strict=True)
    return {
        argument.arg: Parameter(_kind(argument.annotation, module), default is None)
        for argument, default in pairs
        if argument.arg != "self"
    }


def _kind(node: ast.AST | None, module: str) -> Any:
    """Find the type that an annotation in the source of a module means."""
    if node is None:
        return Any
    if isinstance(node, ast.Constant):
        if node.value is None or node.value is Ellipsis:
            return node.value
        return _kind(ast.parse(str(node.value), mode="eval").body, module)
    if isinstance(node, ast.BinOp):
        kinds = [_kind(node.left, module), _kind(node.right, module)]
        # Where a plain value will do, nobody is told of what settings cannot give: a tensor.
        plain = [
            kind
            for kind in kinds
            if kind is not None and not (isinstance(kind, type) and issubclass(kind, Object))
        ]
        return plain[0] if len(plain) == 1 and None not in kinds else kinds[0] | kinds[1]
    is_generic = isinstance(node, ast.Subscript)
    name = ast.unparse(node.value if isinstance(node, ast.Subscript) else node).rpartition(".")[2]
    if isinstance(node, ast.Subscript) and name in GENERICS:
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            return Literal[tuple(ast.literal_eval(item) for item in items)]
        return GENERICS[name][tuple(_kind(item, module) for item in items)]
    if name in TYPES:
        return TYPES[name]
    home, found = _definition(module, name)
    if not is_generic and isinstance(found, ast.Assign | ast.AnnAssign):
        return _kind(found.value, home)
    return type(name, (Object,), {})


def _definition(module: str, name: str) -> tuple[str, ast.AST | None]:
    """Find where a name of a module is defined, and the statement; None: not in asr."""
    source, is_package = _source(module)
    for node in ast.walk(source):  # imports for types only stand inside of an `if`
        if isinstance(node, ast.ImportFrom) and any(each.name == name for each in node.names):
            # `from .x` of a package's __init__ starts in the package, of a module beside it.
            parts = module.split(".")
            parents = parts[: len(parts) - node.level + is_package] if node.level else []
            return _definition(".".join([*parents, *filter(None, [node.module])]), name)
    for node in source.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if getattr(node, "name", None) == name or any(
            isinstance(each, ast.Name) and each.id == name for each in targets
        ):
            return module, node
    return module, None


@cache
def _source(module: str) -> tuple[ast.Module, bool]:
    """Parse a module, and tell whether it is a package; an empty tree for modules of others."""
    top, *rest = module.split(".")
    # For the name of a package alone this imports nothing; what is torch's own are classes.
    spec = find_spec(top) if top == "asr" or module.startswith("torch.optim") else None
    folder = Path(spec.origin).parent.joinpath(*rest) if spec and spec.origin else Path()
    for path in (folder / "__init__.py", folder.with_suffix(".py")) if spec else ():
        if path.is_file():
            return ast.parse(path.read_text(encoding="utf-8")), path.stem == "__init__"
    return ast.Module([], []), False
