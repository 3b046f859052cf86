"""Files and values of somebody else's: what is taken, and what the one line says of the rest."""

from __future__ import annotations

import enum
import gzip
import io
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from asr.untrusted import (
    MAX_BLANK_LINES,
    MAX_DEPTH,
    MAX_LINE_BYTES,
    PIPE_WAIT_S,
    annotations_of,
    check_arguments,
    checked,
    described,
    lines,
    open_regular,
    open_text,
    read_bytes,
    read_json,
    read_stream,
    read_text,
    record,
    shown,
    whole_lines,
)
from tests.test_packed import PACKERS, opened


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.0


@dataclass(frozen=True)
class Shape:
    name: str
    points: tuple[Point, ...] = ()
    colour: Colour | None = None
    labels: Mapping[str, float] = field(default_factory=dict)


class Drawer(Protocol):
    def draw(self) -> None: ...


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (3, int, 3),
        (3, float, 3),  # stays as it is written
        (2.5, float, 2.5),
        (True, bool, True),
        ("a", str, "a"),
        (None, None, None),
        (None, int | None, None),
        (4, int | str | None, 4),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], list[int], [1, 2]),
        ([1, 2], Sequence[int], (1, 2)),
        ([1, "a"], tuple[int, str], (1, "a")),
        ({"a": 1}, Mapping[str, float], {"a": 1}),
        ("auto", Literal["auto", "cpu"], "auto"),
        ("red", Colour, Colour.RED),
        ("a/b", Path, Path("a/b")),
        ("a/b", Path | str | None, "a/b"),
        ("a/b", Path | None, Path("a/b")),
        ({"x": 1}, Point, Point(1)),
        (Point(1), Point, Point(1)),
        ({"anything": [1]}, Any, {"anything": [1]}),
        (len, Callable[[str], int], len),
        (Point(1), Drawer, Point(1)),  # an object; what it can is its user's business
    ],
)
def test_values_of_the_right_type(value: object, kind: object, expected: object) -> None:
    made = checked(value, kind, "it")
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ("3", int, "it is '3', expected a whole number"),
        (2.5, int, "it is 2.5, expected a whole number"),
        (True, int, "it is True, expected a whole number"),
        (True, float, "it is True, expected a number"),
        (1 << 63, int, "it is 9223372036854775808, expected a number of 64 bits"),
        (1 << 2000, float, f"it is {shown(1 << 2000)}, expected a number of 64 bits"),
        (float("nan"), float, "it is nan, expected a number"),
        (1, str, "it is 1, expected a text"),
        (1, bool, "it is 1, expected true or false"),
        (None, int, "it is None, expected a whole number"),
        ([1], int | None, "it is [1], expected a whole number or null"),
        ("ab", tuple[str, ...], "it is 'ab', expected a list, each a text"),
        ([1, "a"], tuple[int, ...], "it[1] is 'a', expected a whole number"),
        ([1], tuple[int, int], "it is [1], expected a list of 2: a whole number, a whole number"),
        ([], Mapping[str, int], "it is [], expected names and values (a whole number)"),
        ({"a": "b"}, Mapping[str, int], "it['a'] is 'b', expected a whole number"),
        ({1: 2}, Mapping[str, int], "a key of it is 1, expected a text"),
        ("gpu", Literal["auto", "cpu"], "it is 'gpu', expected one of auto, cpu"),
        ("green", Colour, "it is 'green', expected one of red, blue"),
        ({"x": 1, "z": 2}, Point, "it has 'z': expected one of x, y"),
        ({"y": 1}, Point, "it has no x, expected one"),
        ({"x": "1"}, Point, "it.x is '1', expected a whole number"),
        (3, Point, "it is 3, expected names and values (x, y)"),
        ({"x": "1"}, Point | None, "it.x is '1', expected a whole number"),
        (3, Drawer, "it is 3, expected a Drawer"),
        (
            {"_target_": "os.system"},
            int,
            "it is {'_target_': 'os.system'}, expected a whole number",
        ),
    ],
)
def test_values_of_another_type_are_named(value: object, kind: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checked(value, kind, "it")


def test_a_record_is_made_of_all_its_levels() -> None:
    data = {"name": "a", "points": [{"x": 1}, {"x": 2, "y": 3.5}], "colour": "blue"}
    assert record(Shape, data, "f") == Shape("a", (Point(1), Point(2, 3.5)), Colour.BLUE)
    data["points"][1]["x"] = None  # type: ignore[index]
    with pytest.raises(ValueError, match=r"^f: points\[1\]\.x is None, expected a whole number$"):
        record(Shape, data, "f")
    with pytest.raises(ValueError, match=r"^f: content is 3, expected names and values \(name, "):
        record(Shape, 3, "f")


def test_depth_is_bounded() -> None:
    kind: Any = int
    value: Any = 1
    for _ in range(MAX_DEPTH + 1):
        kind, value = list[kind], [value]
    with pytest.raises(ValueError, match="nested deeper"):
        checked(value, kind, "it")


def test_arguments_of_a_constructor() -> None:
    class Thing:
        def __init__(self, size: int, rate: float = 1.0, kinds: Sequence[str] = ()) -> None: ...

    assert check_arguments(Thing, {"size": 3, "kinds": ["a"]}, "thing") == {
        "size": 3,
        "kinds": ("a",),
    }
    assert annotations_of(Thing)["size"] is int
    for arguments, message in (
        ({}, "thing.size is missing, expected a value"),
        ({"size": 3, "rat": 2}, "unknown setting thing.rat: did you mean rate?"),
        (
            {"size": 3, "_args_": []},
            "unknown setting thing._args_: expected one of size, rate, kinds",
        ),
        ({"size": "3"}, "thing.size is '3', expected a whole number"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            check_arguments(Thing, arguments, "thing")


def test_files_that_are_no_files_are_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero"), tmp_path):
        with pytest.raises(ValueError, match=f"{path}: not a regular file, expected a model file"):
            open_regular(path, "a model file")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none", "a model file")


def test_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"12345")
    assert read_bytes(path, "numbers", 5) == b"12345"
    with pytest.raises(ValueError, match=f"^{path}: 5 bytes, expected numbers of at most 4$"):
        read_bytes(path, "numbers", 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"[NaN]", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" + b"1" * 5000 + b"]", "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_json_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_json(path, "a calibration", 1 << 20)
    assert str(error.value).startswith(f"{path}: ")
    assert "expected a calibration" in str(error.value)


def test_text_and_json(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_text(path, "numbers", 100) == '{"a": 1}'
    assert read_json(path, "numbers", 100) == {"a": 1}


def test_what_is_shown_is_short_and_printable() -> None:
    assert shown("\x1b[2J") == "'\\x1b[2J'"
    assert len(shown("a" * 1000)) < 80
    assert described(int | None) == "a whole number or null"


# --- lines and packed files ----------------------------------------------------------------------


def test_lines_come_with_their_numbers_and_ends() -> None:
    assert list(lines(opened(b"a\n\n b \nc"), "x")) == [
        (1, b"a\n"), (2, b"\n"), (3, b" b \n"), (4, b"c")
    ]  # fmt: skip
    assert list(lines(opened(b""), "x")) == []


def test_a_long_line_comes_cut_and_the_next_one_is_whole() -> None:
    content = b"a" * (3 * MAX_LINE_BYTES) + b"\n" + b"b" * MAX_LINE_BYTES + b"\nc"
    found = [(number, len(line)) for number, line in lines(opened(content), "x")]
    assert found == [(1, MAX_LINE_BYTES + 1), (2, MAX_LINE_BYTES + 1), (3, 1)]


def test_a_line_without_end_ends_the_reading() -> None:
    class Zeros:
        def readline(self, size: int, /) -> bytes:
            return bytes(size)

    found = lines(Zeros(), "x")
    assert len(next(found)[1]) == MAX_LINE_BYTES + 1
    with pytest.raises(ValueError, match=r"^x:1: more than 268435456 bytes, expected lines$"):
        next(found)


def test_all_lines_together_are_bounded() -> None:
    assert len(list(lines(opened(b"ab\n" * 5), "x", 15))) == 5
    with pytest.raises(ValueError, match=r"^x:5: expected a file of at most 14 bytes$"):
        list(lines(opened(b"ab\n" * 5), "x", 14))


def test_a_stream_is_read_up_to_a_bound() -> None:
    content = bytes(range(256)) * 10_000
    assert read_stream(io.BytesIO(content), "x", "audio", len(content)) == content
    with pytest.raises(ValueError, match=r"^x: more than 2559999 bytes, expected audio$"):
        read_stream(io.BytesIO(content), "x", "audio", len(content) - 1)


def test_empty_lines_are_let_pass_up_to_a_number_in_a_row() -> None:
    some = b"a\n" + b" \n" * MAX_BLANK_LINES
    assert sum(1 for _ in lines(opened(some * 3), "x")) == 3 * (MAX_BLANK_LINES + 1)
    with pytest.raises(ValueError, match=r"^x:10002: 10001 empty lines in a row, expected at most"):
        list(lines(opened(some + b"\n"), "x"))


def texts_of(path: Path) -> list[bytes]:
    with open_text(path) as file:
        return [line for _, line in whole_lines(file, path)]


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def write_later(path: Path, blocks: list[bytes], wait_s: float) -> threading.Thread:
    """A writer that takes its time before every block, and before it leaves."""

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for block in blocks:
                time.sleep(wait_s)
                file.write(block)
            time.sleep(wait_s)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("form", ["plain", *PACKERS])
def test_files_are_text_or_packed(tmp_path: Path, form: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(PACKERS.get(form, bytes)(b"a\nb\n"))
    assert texts_of(path) == [b"a\n", b"b\n"]


def test_a_pipe_is_read_to_its_end(fifo: Path) -> None:
    for blocks in ([b"a\n", b"b\n"], [gzip.compress(b"a\nb\n", mtime=0)], [b"a\nb\n"]):
        thread = write_later(fifo, blocks, wait_s=0.15)
        assert texts_of(fifo) == [b"a\n", b"b\n"]
        thread.join()


@pytest.mark.parametrize("wait_s", [0, 0.15])
def test_a_writer_that_leaves_without_a_byte_is_like_one_that_never_came(
    fifo: Path, wait_s: float
) -> None:
    thread = write_later(fifo, [], wait_s)
    with pytest.raises(ValueError, match="a pipe that nobody writes to"):
        texts_of(fifo)
    thread.join()


def test_a_pipe_of_a_shell_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"a\nb\n")
    os.close(writing)
    assert texts_of(Path(f"/dev/fd/{reading}")) == [b"a\n", b"b\n"]
    os.close(reading)


def test_a_pipe_that_nobody_writes_to_is_told_soon(fifo: Path) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"fifo: a pipe that nobody writes to, expected a text$"):
        texts_of(fifo)
    assert PIPE_WAIT_S <= time.monotonic() - start < PIPE_WAIT_S + 2


def test_a_device_without_end_is_told_soon() -> None:
    with pytest.raises(ValueError, match=rf"^/dev/zero:1: more than {MAX_LINE_BYTES} bytes, "):
        texts_of(Path("/dev/zero"))
    assert texts_of(Path("/dev/null")) == []


def test_folders_and_missing_files_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(OSError, match="irectory") as found:
            texts_of(path)
        assert found.value.filename == str(path) or str(path) in str(found.value.filename)
