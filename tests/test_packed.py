"""Packed texts: known by their content, no bombs, and what is damaged is told with its line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable

import pytest

from asr.packed import FREE_BYTES, unpacked
from asr.untrusted import lines


def opened(content: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(content))  # type: ignore[arg-type]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("form", PACKERS)
def test_packed_files_are_known_by_their_content(form: str) -> None:
    pack = PACKERS[form]
    words = random.Random(0).choices(range(10_000), k=400_000)
    text = "\n".join(map(str, words)).encode()
    assert unpacked(opened(pack(text)), "x").read() == text
    assert unpacked(opened(pack(text) * 2), "x").read() == text * 2
    assert unpacked(opened(pack(text) + bytes(8)), "x").read() == text
    assert unpacked(opened(pack(b"")), "x").read() == b""
    assert unpacked(opened(text), "x").read() == text
    assert unpacked(opened(b""), "x").read() == b""


@pytest.mark.parametrize("text", [b"BZh", b"BZh9 is a word\n", b"BZh91AY", b"\xfd7z"])
def test_a_text_that_begins_like_one_is_a_text(text: bytes) -> None:
    assert unpacked(opened(text), "x").read() == text


@pytest.mark.parametrize("form", PACKERS)
@pytest.mark.parametrize("byte", [b"\n", b"\0"])
def test_a_bomb_is_refused_after_a_few_megabytes(form: str, byte: bytes) -> None:
    pack = PACKERS[form]
    packed = pack(byte * 100_000_000)
    reader = unpacked(opened(packed), "x")
    taken: list[bytes] = []
    message = f"^x: {form} of .* expected at most 200 times its size$"
    with pytest.raises(ValueError, match=message):
        taken.extend(iter(lambda: reader.read1(1 << 16), b""))
    assert sum(map(len, taken)) <= 8 * FREE_BYTES
    # What any file may hold, however well it is packed, is no bomb.
    assert len(unpacked(opened(pack(byte * FREE_BYTES)), "x").read()) == 1 << 20


@pytest.mark.parametrize("form", PACKERS)
def test_a_damaged_packed_file_is_told_with_its_line(form: str) -> None:
    packed = PACKERS[form]("".join(f"{n}\n" for n in range(100_000)).encode())
    middle = len(packed) // 2
    for damaged in (
        packed[:-100], packed[:-2], packed[:middle] + b"xxxx" + packed[middle + 4 :], packed + b"x",
        packed + b"words",
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^x:\d+: damaged {form} \("):
            list(lines(unpacked(opened(damaged), "x"), "x"))


def test_xz_that_asks_for_too_much_memory() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}]
    with pytest.raises(ValueError, match=r"^x:1: damaged xz \(Memory usage limit exceeded"):
        list(lines(unpacked(opened(lzma.compress(b"a\n", filters=filters)), "x"), "x"))
    largest = lzma.compress(b"a\n", preset=9 | lzma.PRESET_EXTREME)
    assert unpacked(opened(largest), "x").read() == b"a\n"
