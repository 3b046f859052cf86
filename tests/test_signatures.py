"""What is read off the sources is what the classes say once they are imported."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

from asr.cli.build import BUILDABLE, target
from asr.signatures import parameters_of
from asr.untrusted import annotations_of, checked

VALUES = (None, True, 3, 2.5, -1, 1e30, 1 << 70, "abc", [], [1], [1.5, 2], ["a"], [[1.0]])


def verdict(value: Any, kind: Any) -> bool:
    try:
        checked(value, kind, "")
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", sorted(BUILDABLE))
def test_names_defaults_and_types_are_those_of_the_class(name: str) -> None:
    constructor = target(name, "here")
    expected = inspect.signature(constructor).parameters
    kinds = annotations_of(constructor)
    found = parameters_of(name)
    assert list(found) == list(expected)
    for key, parameter in expected.items():
        assert found[key].is_needed is (parameter.default is inspect.Parameter.empty), key
        for value in VALUES if key != "params" else ():  # which an optimiser gets when it is built
            assert verdict(value, found[key].kind) is verdict(value, kinds[key]), (key, value)


def test_nothing_is_imported_for_it() -> None:
    code = (
        "import sys; from asr.cli.build import BUILDABLE\n"
        "from asr.signatures import parameters_of\n"
        "for name in BUILDABLE: parameters_of(name)\n"
        "assert not {'torch', 'numpy', 'asr.model', 'asr.trainer'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
