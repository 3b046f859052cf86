"""`.ngram` files: the same model again, and no damage that is not noticed."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asr.decoder.ngram import NgramModel, load_ngram_model, save_ngram_model
from asr.decoder.ngram.counts import encode
from asr.decoder.ngram.kneser_ney import train
from asr.decoder.ngram.ngram_file import read_ngram_file
from tests.decoder.ngram.random_text import random_sentences

FALLBACK = (0.5, 1.0, 1.5)
PREFIX = struct.Struct("<8sII32s")


@pytest.fixture
def model() -> NgramModel:
    """A small trigram model."""
    return train(encode(random_sentences(20, 20)), 3, fallback=FALLBACK).model


@pytest.fixture
def path(model: NgramModel, tmp_path: Path) -> Path:
    """Its file."""
    path = tmp_path / "model.ngram"
    save_ngram_model(path, model)
    return path


def forged(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The file with another header."""
    content = path.read_bytes()
    magic, version, length, _ = PREFIX.unpack_from(content)
    header = json.loads(content[PREFIX.size : PREFIX.size + length])
    new = json.dumps(change(header) or header).encode()
    rest = new + content[PREFIX.size + length :]
    path.write_bytes(PREFIX.pack(magic, version, len(new), hashlib.sha256(rest).digest()) + rest)
    return path


def test_the_same_model_again(model: NgramModel, path: Path) -> None:
    again = load_ngram_model(path)
    assert (again.order, again.words) == (model.order, model.words)
    for ours, theirs in zip(model.arrays, again.arrays, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
        assert theirs.flags.writeable == ours.flags.writeable
    content = path.read_bytes()
    save_ngram_model(path, again)
    assert path.read_bytes() == content


def test_the_layout_is_the_one_described(model: NgramModel, path: Path) -> None:
    content = path.read_bytes()
    magic, version, length, sha256 = PREFIX.unpack_from(content)
    assert (magic, version) == (b"asrngram", 1)
    header = json.loads(content[PREFIX.size : PREFIX.size + length])
    assert sha256 == hashlib.sha256(content[PREFIX.size :]).digest()
    assert header["order"] == 3
    rest = content[PREFIX.size + length :]
    words = "\n".join(model.words).encode()
    assert rest.startswith(words)
    log_probs = np.frombuffer(rest, "<f4", len(model.log_probs), len(words))
    assert np.array_equal(log_probs, model.log_probs)


def test_every_cut_and_every_flipped_bit_is_noticed(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    damaged = tmp_path / "damaged.ngram"
    for end in range(0, len(content), 13):
        damaged.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"expected|damaged") as found:
            read_ngram_file(damaged)
        assert "\n" not in str(found.value)
    for place in range(0, len(content), 13):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        damaged.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"expected|damaged"):
            read_ngram_file(damaged)


def test_a_forged_header_costs_nothing(path: Path) -> None:
    def huge(header: dict[str, Any]) -> None:
        header["parts"][1][2] = 1 << 60

    with pytest.raises(ValueError, match=r"model.ngram: \d+ bytes, expected \d{19,}"):
        read_ngram_file(forged(path, huge))


def test_a_model_that_memory_does_not_hold_is_not_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.memory.available_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"model\.ngram: needs .* GB of memory, expected at most"):
        read_ngram_file(path)


def test_words_without_nodes_are_not_made_into_objects(path: Path) -> None:
    content = path.read_bytes()
    length = PREFIX.unpack_from(content)[2]
    more = b"\n" * 1000

    def longer(header: dict[str, Any]) -> None:
        header["parts"][0][2] += len(more)

    start = PREFIX.size + length
    path.write_bytes(content[:start] + more + content[start:])
    with pytest.raises(ValueError, match="not an n-gram model: more words than nodes"):
        read_ngram_file(forged(path, longer))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h | {"order": 2}, "not an n-gram model: more levels than its order"),
        (lambda h: h | {"order": 1 << 40}, "not an n-gram model: order 1099511627776"),
        (lambda h: h | {"order": "3"}, "damaged header: order '3', expected a whole number"),
        (lambda h: h | {"order": True}, "damaged header: order True, expected a whole number"),
        (lambda h: h | {"code": "x"}, "damaged header, expected order and parts"),
        (lambda h: [1], "damaged header, expected order and parts"),
        (lambda h: h | {"parts": h["parts"][:-1]}, "damaged header, expected the parts words, log"),
        (lambda h: h | {"parts": [[*p[:2], -1] for p in h["parts"]]}, "damaged header, expected"),
        (lambda h: h | {"parts": 5}, "damaged header, expected the parts"),
    ],
)
def test_forged_headers_are_refused(
    change: Callable[[dict[str, Any]], Any], message: str, path: Path
) -> None:
    with pytest.raises(ValueError, match=f"model.ngram: {message}"):
        read_ngram_file(forged(path, change))


def test_other_files_and_versions_are_refused(path: Path, tmp_path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8] = 9
    path.write_bytes(content)
    with pytest.raises(ValueError, match="format version 9, expected 1"):
        load_ngram_model(path)
    path.write_bytes(PREFIX.pack(b"asrngram", 1, 1 << 30, bytes(32)))
    with pytest.raises(ValueError, match="header of 1073741824 bytes, expected at most 4096"):
        load_ngram_model(path)
    path.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(ValueError, match="a binary of KenLM, expected the ARPA file"):
        load_ngram_model(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=":1: the file ends, expected"):
        load_ngram_model(path)
    with pytest.raises(ValueError, match=r"expected a name that ends in .ngram, .arpa, .arpa.gz"):
        save_ngram_model(tmp_path / "model.bin", train(encode([["a"]]), 1, fallback=FALLBACK).model)
