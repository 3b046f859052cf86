"""Model files: what is written is read back, other people's are read, damaged ones are refused."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from asr.decoder.kneser_ney import encode, train
from asr.decoder.ngram import NgramModel, measure_perplexity
from asr.decoder.ngram_file import (
    _digest,
    load_ngram_model,
    read_arpa,
    read_compact,
    save_ngram_model,
)
from asr.untrusted import MAX_LINE_BYTES
from tests.decoder.random_text import random_sentences

FALLBACK = (0.5, 1.0, 1.5)

# As SRILM writes: spaces before and after, no back-off where nothing follows, other order than
# that of the words, no <unk>, text before the beginning.
FOREIGN = """a comment

\\data\\
ngram 1=4
ngram 2=3
ngram 3=1

\\1-grams:
-0.5 b -0.25
-1 </s>
-99\t<s>\t-0.125
-0.75\ta\t-0.0625

\\2-grams:
-0.1 b a
-0.2 <s> a -0.3
-0.4 a b

\\3-grams:
-0.05 <s> a b

\\end\\
"""


def log10(model: NgramModel, sentence: str) -> list[float]:
    """log10 P of each word and of the end."""
    return [log_prob / math.log(10) for log_prob in model.score(sentence.split())]


def write(folder: Path, text: str | bytes) -> Path:
    """A file of that content."""
    path = folder / "model.arpa"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def assert_reads_as_foreign(path: Path) -> None:
    model = read_arpa(path)
    assert model.order == 3
    assert model.counts == [5, 3, 1]
    # a after <s>; b after <s> a; a after "a b", which has no back-off, so after b; the end after
    # "b a", backed off with 0 for it and a's own.
    assert log10(model, "a b a") == pytest.approx([-0.2, -0.05, -0.1, -0.0625 - 1], abs=1e-6)
    # Without <unk> an unknown word has log10 P -100.
    assert log10(model, "a x")[1] == pytest.approx(-0.3 - 0.0625 - 100, abs=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz"])
def test_what_is_written_is_read_back_to_the_bit(order: int, name: str, tmp_path: Path) -> None:
    text = encode(random_sentences(200, 60), min_count=2)
    model = train(text, order, prune=[0, 0, 1][:order], fallback=FALLBACK).model
    path = tmp_path / name
    save_ngram_model(path, model)
    again = load_ngram_model(path)
    assert (again.order, again.words) == (model.order, model.words)
    for ours, theirs in zip(model.ngrams, again.ngrams, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    content = path.read_bytes()
    save_ngram_model(path, again)
    assert path.read_bytes() == content
    assert content.startswith(b"\x1f\x8b") == name.endswith(".gz")


def test_marks_are_written_as_others_expect(tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    save_ngram_model(path, train(encode([["a"]]), 2, fallback=FALLBACK).model)
    lines = path.read_text().splitlines()
    assert lines[:4] == ["\\data\\", "ngram 1=4", "ngram 2=2", ""]
    assert lines[4] == "\\1-grams:"
    assert lines[6].startswith("-99\t<s>\t-0.301029")  # of 1 count, half is left
    assert lines[-2:] == ["", "\\end\\"]
    assert all(len(line.split("\t")) == 2 for line in lines[lines.index("\\2-grams:") + 1 : -2])


def test_other_peoples_files_are_read(tmp_path: Path) -> None:
    assert_reads_as_foreign(write(tmp_path, FOREIGN))
    assert_reads_as_foreign(write(tmp_path, FOREIGN.replace("\n", "\r\n")))
    assert_reads_as_foreign(
        write(tmp_path, FOREIGN.replace(" ", "\t").replace("ngram\t", "ngram "))
    )
    assert_reads_as_foreign(write(tmp_path, FOREIGN.replace("\n-", "\n\n  -")))
    for pack in (gzip.compress, lzma.compress, bz2.compress):
        assert_reads_as_foreign(write(tmp_path, pack(FOREIGN.encode())))
    assert_reads_as_foreign(write(tmp_path, FOREIGN.replace("=", " = ")))
    assert_reads_as_foreign(write(tmp_path, FOREIGN.replace("-99", "-inf")))
    assert_reads_as_foreign(write(tmp_path, "\ufeff" + FOREIGN))


def test_unknown_in_capitals_is_the_unknown_word(tmp_path: Path) -> None:
    text = FOREIGN.replace("1=4", "1=5").replace("-1 </s>", "-1 </s>\n-3 <UNK>")
    text = text.replace("2=3", "2=4").replace("-0.4 a b", "-0.4 a b\n-0.6 a <UNK>")
    model = read_arpa(write(tmp_path, text))
    assert log10(model, "b a x")[2] == pytest.approx(-0.6, abs=1e-6)


def test_words_of_any_script(tmp_path: Path) -> None:
    # A no-break space is no white space of ARPA's.
    text = FOREIGN.replace("b", "gr\u00fc\u00df\u00a0dich").replace("a ", "\u65e5\u672c ")
    with pytest.raises(ValueError, match="words that are among the 1-grams"):
        read_arpa(write(tmp_path, text))
    model = read_arpa(
        write(tmp_path, FOREIGN.replace("\tb", "\t").replace("b", "gr\u00fc\u00df\u00a0dich"))
    )
    assert "gr\u00fc\u00df\u00a0dich" in model


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "data", ":23: the file ends, expected \\data\\, with which ARPA files begin"),
        ("ngram 1=4", "ngram 2=4", ":4: 'ngram 2=4', expected ngram 1=COUNT"),
        ("ngram 1=4", "ngram 1=-4", ":4: 'ngram 1=-4', expected ngram 1=COUNT"),
        ("1=4", "1=44444444444", ":4: 'ngram 1=44444444444', expected a count of at most 10"),
        ("1=4", "1=5", ":14: '\\\\2-grams:', expected a log10 probability, 1 words and perhaps a "
         "back-off weight (4 of 5 1-grams are there)"),
        ("1=4", "1=3", ":12: '-0.75\\ta\\t-0.0625', expected \\2-grams: after the 3 1-grams"),
        ("3=1", "3=2", ":22: '\\\\end\\\\', expected a log10 probability, 3 words and"),
        ("ngram 3=1\n", "", ":15: '-0.2 <s> a -0.3', expected no back-off weight in an n-gram"),
        ("\\end\\", "", ":23: the file ends, expected \\end\\ after the 1 3-grams"),
        ("\\1-grams:", "\\1-gram:", ":8: '\\\\1-gram:', expected \\1-grams:"),
        ("-0.5 b", "-0.5_0 b", ":9: '-0.5_0 b -0.25', expected a log10 probability of at most 0"),
        ("-0.5 b", "0.5 b", ":9: '0.5 b -0.25', expected a log10 probability of at most 0"),
        ("-0.5 b", "nan b", ":9: 'nan b -0.25', expected a log10 probability of at most 0"),
        ("-0.5 b", "x b", ":9: 'x b -0.25', expected a log10 probability of at most 0"),
        ("b -0.25", "b inf", ":9: '-0.5 b inf', expected a finite number as its back-off weight"),
        ("-1 </s>", "-1", ":10: '-1', expected a log10 probability, 1 words"),
        ("-1 </s>", "-1 b", ":10: 'b', expected a word that is not there already"),
        ("-1 </s>", "-1 c", ": no </s> among 4 words, expected it"),
        ("-0.1 b a", "-0.1 b c", ":15: '-0.1 b c', expected words that are among the 1-grams"),
        ("-0.1 b a", "-0.1 a b", ":17: this 2-gram is there already, expected once"),
        ("<s> a b", "b b a", ":20: its first 2 words are no 2-gram, expected one"),
        ("<s> a b", "<s> a b -0.5", ":20: '-0.05 <s> a b -0.5', expected no back-off weight"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_with_the_line(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in FOREIGN
    path = write(tmp_path, FOREIGN.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(f"{path}{message}")) as found:
        read_arpa(path)
    assert "\n" not in str(found.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, FOREIGN.encode().replace(b" b -0.25", b" \xfc -0.25"))
    with pytest.raises(ValueError, match=r":9: '\\\\xfc', expected a word in UTF-8"):
        read_arpa(path)
    path = write(tmp_path, FOREIGN.encode().replace(b"-0.4 a b", b"-0.4 a \xfc"))
    with pytest.raises(ValueError, match=r":17: '-0.4 a \\\\xfc', expected words that are among"):
        read_arpa(path)
    path = write(tmp_path, b"x" * (MAX_LINE_BYTES + 1))
    with pytest.raises(ValueError, match=r":1: more than 1048576 bytes, expected a shorter line"):
        read_arpa(path)


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    content = FOREIGN.rstrip().encode()
    for end in range(len(content)):
        with pytest.raises(ValueError, match="expected"):
            read_arpa(write(tmp_path, content[:end]))
    packed = gzip.compress(content)
    for end in range(2, len(packed), 7):
        with pytest.raises(ValueError, match=r"damaged gzip \(.*\)|expected"):
            read_arpa(write(tmp_path, packed[:end]))


def test_a_full_disk_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "former")
    monkeypatch.setattr("asr.decoder.ngram_file._log10", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_ngram_model(path, train(encode([["a"]]), 2, fallback=FALLBACK).model)
    assert path.read_text() == "former"
    assert list(tmp_path.iterdir()) == [path]


# --- the compact form ---


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
    """The file with another header: `change` is given its JSON, the description read too."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"]["asr"] = json.loads(header["__metadata__"]["asr"])
    header = change(header) or header
    if isinstance(header.get("__metadata__"), dict):
        header["__metadata__"] |= {"asr": json.dumps(header["__metadata__"]["asr"])}
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + content[end:])
    return path


def described(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the description; None takes a value away."""

    def change(header: dict[str, Any]) -> None:
        own = header["__metadata__"]["asr"] | changes
        header["__metadata__"]["asr"] = {k: v for k, v in own.items() if v is not None}

    return change


def test_the_same_model_again(model: NgramModel, path: Path) -> None:
    again = load_ngram_model(path)
    assert (again.order, again.words) == (model.order, model.words)
    for ours, theirs in zip(model.ngrams, again.ngrams, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
        assert theirs.flags.writeable == ours.flags.writeable
    content = path.read_bytes()
    save_ngram_model(path, again)
    assert path.read_bytes() == content


def test_the_layout_is_the_one_of_safetensors(model: NgramModel, path: Path) -> None:
    content = path.read_bytes()
    found = safetensors.numpy.load(content)
    assert bytes(found["words"]) == "\n".join(model.words).encode()
    size, counts = len(model.words), model.counts
    assert np.array_equal(found["word_log_probs"], model.log_probs[1 : size + 1])
    assert np.array_equal(found["word_ids"], model.word_ids[size + 1 :])
    assert found["word_ids"].dtype == np.uint16
    assert len(found["log_probs"]) == counts[1] + counts[2]
    assert len(found["backoffs"]) == counts[1]
    assert len(found["num_children"]) == size + counts[1]
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    description = json.loads(header["__metadata__"]["asr"])
    assert (description["format_version"], description["order"]) == (3, 3)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_models_of_any_order_come_back(order: int, tmp_path: Path) -> None:
    text = encode([word.split() for word in ("a b a b c", "b a b", "c a", "a b c a b")])
    own = train(text, order, fallback=(0.5, 1.0, 1.5)).model
    path = tmp_path / "own.ngram"
    for quantize in (False, True):
        save_ngram_model(path, own, quantize=quantize)
        again = load_ngram_model(path)
        assert again.counts == own.counts
        assert again.words == own.words
        # Fewer numbers than bins: each has one of its own.
        for ours, theirs in zip(own.ngrams, again.ngrams, strict=True):
            assert np.array_equal(ours, theirs)


def test_numbers_of_a_byte_are_the_means_of_their_neighbours(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    sentences = [[f"w{k}" for k in draws.zipf(1.3, 8) if k < 3000] for _ in range(4000)]
    own = train(encode(each for each in sentences if each), 3).model
    whole, small = tmp_path / "whole.ngram", tmp_path / "small.ngram"
    save_ngram_model(whole, own)
    save_ngram_model(small, own, quantize=True)
    again, start = load_ngram_model(small), len(own.words) + 1
    assert small.stat().st_size < 0.6 * whole.stat().st_size
    assert np.array_equal(again.log_probs[:start], own.log_probs[:start])
    assert np.array_equal(again.backoffs[:start], own.backoffs[:start])
    for name in ("log_probs", "backoffs"):
        ours, theirs = getattr(own, name), getattr(again, name)
        assert np.array_equal(ours == 0, theirs == 0)
        for begin, end in pairwise([*own.level_starts[2:], len(ours)]):
            if not ours[begin:end].any():
                continue
            assert len(np.unique(theirs[begin:end])) <= 256
            assert theirs[begin:end].mean() == pytest.approx(ours[begin:end].mean(), rel=1e-4)
            order = np.argsort(ours[begin:end], kind="stable")
            assert np.all(np.diff(theirs[begin:end][order]) >= 0)
    assert np.abs(again.log_probs - own.log_probs).mean() < 0.02
    held_out = measure_perplexity(own, sentences[:200]).without_oov
    assert measure_perplexity(again, sentences[:200]).without_oov == pytest.approx(
        held_out, rel=0.01
    )


def test_bytes_have_no_place_in_arpa(model: NgramModel, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"numbers in a byte, expected a name that ends in \.ngram"
    ):
        save_ngram_model(tmp_path / "model.arpa", model, quantize=True)


def test_every_cut_and_every_flipped_bit_is_noticed(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    damaged = tmp_path / "damaged.ngram"
    for end in range(0, len(content), 13):
        damaged.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"expected|damaged") as found:
            read_compact(damaged)
        assert "\n" not in str(found.value)
    header_end = 8 + int.from_bytes(content[:8], "little")
    for place in (*range(header_end), *range(header_end, len(content), 13)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        damaged.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"expected|damaged"):
            read_compact(damaged)


def test_a_forged_header_costs_nothing(path: Path) -> None:
    def huge(header: dict[str, Any]) -> None:
        header["log_probs"] |= {"shape": [1 << 60], "data_offsets": [0, 1 << 62]}

    with pytest.raises(ValueError, match=r"model.ngram: damaged \(.*\), expected a language model"):
        read_compact(forged(path, huge))


def test_a_file_of_holes_is_not_read(path: Path) -> None:
    size = 1 << 43  # 8 TiB

    def huge(header: dict[str, Any]) -> None:
        begin = header["words"]["data_offsets"][0]  # which come last
        header["words"] |= {"shape": [size], "data_offsets": [begin, begin + size]}

    with forged(path, huge).open("r+b") as file:
        header_end = 8 + int.from_bytes(file.read(8), "little")
        begin = json.loads(file.read(header_end - 8))["words"]["data_offsets"][0]
        file.truncate(header_end + begin + size)
    with pytest.raises(ValueError, match=r"model\.ngram: needs .* GB of memory, expected at most"):
        read_compact(path)


def test_a_model_that_memory_does_not_hold_is_not_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.memory.available_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"model\.ngram: needs .* GB of memory, expected at most"):
        read_compact(path)


def test_words_without_nodes_are_not_made_into_objects(model: NgramModel, path: Path) -> None:
    text = "\n".join(model.words) + "\n" * 1000
    forge_arrays(path, model.order, words=np.frombuffer(text.encode(), np.uint8))
    with pytest.raises(ValueError, match="not an n-gram model: 1023 words, expected 23"):
        read_compact(path)


def forge_arrays(path: Path, order: int, **changes: NDArray[Any]) -> None:
    """The file with other arrays, of a right checksum."""
    arrays = safetensors.numpy.load_file(path) | changes
    description = {"format_version": 3, "order": order, "sha256": _digest(order, arrays)}
    path.write_bytes(safetensors.numpy.save(arrays, {"asr": json.dumps(description)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (described(format_version=2), ".ngram format version 2, expected 3: make it anew"),
        (described(order=None), "content has no order, expected one"),
        (described(order="3"), "order is '3', expected a whole number"),
        (described(order=True), "order is True, expected a whole number"),
        (described(order=2), "damaged: sha256 .*, expected .*"),
        (described(order=1 << 70), "order is 1180591620717411303424, expected a number of 64 bits"),
        (described(sha256="0" * 64), r"damaged: sha256 .*, expected 000000000000\.\.\."),
        (described(code="x"), "content has 'code': did you mean order"),
        (lambda h: h["__metadata__"].update(more="x"), "expected one description"),
        (lambda h: h["__metadata__"].update(asr=[1]), r"content is \[1\], expected names and"),
        (lambda h: h.pop("__metadata__") and h, "expected one description"),
        (lambda h: h["word_ids"].update(dtype="F16"), "damaged header, expected the arrays words"),
        (lambda h: h.update(backoff=h.pop("backoffs")), "damaged header, expected the arrays"),
        (
            lambda h: h["words"]["shape"].append(1),
            "damaged header, expected the arrays words, word",
        ),
        (lambda h: h["words"].update(shape=[-1]), r"damaged \(.*\), expected a language model"),
        (lambda h: h["words"].update(shape=5), r"damaged \(.*\), expected a language model"),
    ],
)
def test_forged_headers_are_refused(
    change: Callable[[dict[str, Any]], Any], message: str, path: Path
) -> None:
    with pytest.raises(ValueError, match=f"model.ngram: .*{message}") as found:
        read_compact(forged(path, change))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"word_ids": lambda a: np.full(len(a), -1, np.int32)}, "word ids out of range"),
        ({"word_ids": lambda a: np.full_like(a, 60_000)}, "word ids out of range"),
        ({"word_ids": lambda a: a[::-1].copy()}, "children are not sorted"),
        ({"word_ids": lambda a: a[:-1]}, r"\d+ n-grams, expected others"),
        ({"num_children": lambda a: a[:-1]}, "longest n-grams have not 3 words"),
        ({"num_children": lambda a: np.full(len(a), 1 << 31, np.uint32)}, "longest n-grams have"),
        ({"log_probs": lambda a: -a}, "a probability above 1"),
        ({"log_probs": lambda a: a[:-1]}, "numbers of 0 values, expected"),
        ({"backoffs": lambda a: a * np.nan}, "a back-off weight is not finite"),
        ({"backoffs": lambda a: np.append(a, a)}, "numbers of 0 values, expected"),
        ({"log_probs": lambda a: a.astype(np.uint8)}, "numbers of 0 values, expected"),
        ({"backoff_values": lambda _: np.zeros(256, np.float32)}, "numbers of 256 values"),
        ({"word_log_probs": lambda a: a[:-1]}, r"\d+ words, expected"),
        ({"word_backoffs": lambda a: a[:-1]}, "other arrays of"),
    ],
)
def test_forged_arrays_are_refused(
    changes: dict[str, Callable[[NDArray[Any]], NDArray[Any]]], message: str, path: Path
) -> None:
    arrays = safetensors.numpy.load_file(path)
    forge_arrays(path, 3, **{name: change(arrays[name]) for name, change in changes.items()})
    with pytest.raises(ValueError, match=rf"model\.ngram: not an n-gram model: .*{message}"):
        read_compact(path)


@pytest.mark.parametrize("order", [2, 4, 0, 11, 1 << 40])
def test_an_order_that_is_not_the_trees_is_refused(
    order: int, model: NgramModel, path: Path
) -> None:
    forge_arrays(path, order)
    with pytest.raises(ValueError, match=r"model.ngram: not an n-gram model: (its longest|order)"):
        read_compact(path)


def test_other_files_and_versions_are_refused(path: Path, tmp_path: Path) -> None:
    path.write_bytes((1 << 30).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(ValueError, match="header of 1073741824 bytes, expected at most 4096"):
        load_ngram_model(path)
    path.write_bytes(b"asrngram\x01\0\0\0" + bytes(100))
    with pytest.raises(ValueError, match=r"model\.ngram: a \.ngram file of an older version, exp"):
        load_ngram_model(path)
    path.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0")
    with pytest.raises(ValueError, match="a binary of KenLM, expected the ARPA file"):
        load_ngram_model(path)
    path.write_bytes(safetensors.numpy.save({"weight": np.zeros(3)}))
    with pytest.raises(ValueError, match=r"model\.ngram: no language model or damaged, expected"):
        load_ngram_model(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=":1: the file ends, expected"):
        load_ngram_model(path)
    with pytest.raises(ValueError, match=r"expected a name that ends in .ngram, .arpa, .arpa.gz"):
        save_ngram_model(tmp_path / "model.bin", train(encode([["a"]]), 1, fallback=FALLBACK).model)
