"""The recogniser: what turns waveforms into log-probabilities, built from a plain description."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asr.features import LogMel
from asr.lexicon import Lexicon, parse_lexicon
from asr.memory import available_memory, require_memory
from asr.model import BiLstmCtc
from asr.model.bilstm_ctc import CHUNKS_AT_ONCE
from asr.text import CharTokenizer, TextNormalizer, Unit, settled
from asr.untrusted import check_arguments, shown

MAX_ARGUMENT_TEXT = 1000  # characters
# No size in a real model comes near; a forged one must not exhaust memory.
MAX_ARGUMENT = 1 << 20
MAX_OF = {
    "num_layers": 64,
    "n_mels": 512,
    "n_fft": 1 << 16,
    "frame_length_ms": 100.0,
    "sample_rate": 384_000,  # [Hz]
}
CONTEXT_S = 5.0  # [s] around a chunk of a long recording, whose output is thrown away
SPARE = 1.15  # of memory: what the libraries take besides
FIXED_BYTES = 64 << 20  # for their buffers, however short a recording is

MODELS: dict[str, Callable[..., nn.Module]] = {"BiLstmCtc": BiLstmCtc}
FEATURES: dict[str, Callable[..., nn.Module]] = {"LogMel": LogMel}

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A class of this package by name, and its constructor's arguments: data, never code."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """Everything but the weights that turns a waveform into text.

    Attributes:
        features: of FEATURES.
        model: of MODELS, without n_mels and vocab_size, which follow from the rest.
        alphabet: characters in the order of their ids, from 1.
        text: the transcript rules' settings.
        phones: names of the phones that the characters stand for; none of a model that writes
            characters.
        lexicon: the words of a model of phones and how they are said, as a file has them.
    """

    features: Part
    model: Part
    alphabet: str
    text: Mapping[str, Any]
    phones: Mapping[str, str] = field(default_factory=dict)
    lexicon: str = ""


class Recognizer(nn.Module):
    """Features, acoustic model, tokenizer and text rules, built from a `ModelSpec`.

    Args:
        spec: what to build.

    Raises:
        ValueError: an unknown part or an argument that its constructor refuses.
    """

    features: LogMel
    model: BiLstmCtc

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.tokenizer = CharTokenizer(spec.alphabet)
        self.text: TextNormalizer = construct(TextNormalizer, "text", spec.text)
        self.lexicon = _lexicon(spec)
        # Windows and filterbanks are derived, not stored: real even where the weights are not yet.
        with torch.device("cpu"):
            self.features = _part(FEATURES, "features", spec.features)
        sizes = {"n_mels": self.features.n_mels, "vocab_size": self.tokenizer.vocab_size}
        self.model = _part(MODELS, "model", spec.model, **sizes)

    @property
    def unit(self) -> Unit:
        """What its errors are counted in; of a file that does not say, as its alphabet is."""
        if self.lexicon is not None:
            return "word"
        return cast(Unit, settled(self.text, [self.tokenizer.alphabet.replace(" ", "")]).unit)

    @property
    def label_names(self) -> list[str]:
        """The characters or phones in the order of their ids, from 1."""
        return [self.spec.phones.get(each, each) for each in self.tokenizer.alphabet]

    @property
    def spellings(self) -> Mapping[str, Sequence[str]] | None:
        """The only words that it can write, and how each is spelt; None for any words."""
        return None if self.lexicon is None else self.lexicon.pronunciations

    def spell(self, text: str) -> str:
        """Write a normalised text in the characters of the alphabet: as it is, or as it is said.

        Raises:
            ValueError: a word that the lexicon has not.
        """
        return text if self.lexicon is None else self.lexicon.spell(text)

    def readable(self, spelt: str) -> str:
        """Write what `spell` gave for people: phones by their names, `DH AH | K AE T`."""
        return spelt if self.lexicon is None else self.lexicon.names(spelt)

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.features.window.device

    @property
    def sample_rate(self) -> int:
        """Of the waveforms [Hz]."""
        return self.features.sample_rate

    @property
    def frame_shift_s(self) -> float:
        """Time between output frames [s]."""
        return self.features.frame_shift_s * self.model.frame_ratio

    @property
    def is_live(self) -> bool:
        """Whether it reads forwards alone, and so runs on a stream without hearing it twice."""
        layers: list[Any] = list(self.model.layers)
        return self.features.is_live and all(layer.num_directions == 1 for layer in layers)

    def output_length(self, num_samples: Tensor) -> Tensor:
        """Count the output frames of waveforms of these lengths: int64, the same shape."""
        return self.model.output_length(self.features.frame_count(num_samples))

    def forward(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Run a padded batch, without augmentation.

        Args:
            waveforms: `(B, N)` float32 at `sample_rate`.
            num_samples: `(B,)` int64.

        Returns:
            log_probs `(B, T, V)` float32 and log_prob_lengths `(B,)` int64 [output frames].
        """
        features, lengths = self.features(waveforms, num_samples)
        log_probs, log_prob_lengths = self.model(features, lengths)
        return log_probs, log_prob_lengths

    @torch.inference_mode()
    def log_probs(
        self, waveforms: Sequence[Waveform], *, chunk_s: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run recordings of any length, without gradients.

        With `chunk_s`, a recording that is longer is run through the network in chunks, in memory
        that does not grow with it but for features and result. Each chunk is run with CONTEXT_S
        around it, whose output is thrown away: the first and last frames of a chunk then see nearly
        as much before and after them as in the whole.

        Args:
            waveforms: at least one, each `(num_samples,)` float32 at `sample_rate`.
            chunk_s: of the longest stretch that the network sees at once, without its context [s];
                None runs all as one batch.

        Returns:
            log_probs `(B, T, V)` float32 and log_prob_lengths `(B,)` int64 [output frames] on
            `device`; no row depends on the others.

        Raises:
            ValueError: they would not fit into memory.
        """
        if chunk_s is not None:
            chunk = round(chunk_s / self.features.frame_shift_s)
            context = round(CONTEXT_S / self.features.frame_shift_s)
            rows = []
            for waveform in waveforms:
                self.require_memory(len(waveform), num_seen=CHUNKS_AT_ONCE * (chunk + 2 * context))
                samples = torch.from_numpy(waveform).to(self.device)[None]
                size = torch.tensor([len(waveform)], device=self.device)
                features, _ = self.features(samples, size)  # (1, T, F)
                rows.append(self.model.log_probs_in_chunks(features[0], chunk, context))
            lengths = torch.tensor([len(row) for row in rows], device=self.device)
            return pad_sequence(rows, batch_first=True), lengths
        self.require_memory(max(map(len, waveforms)), len(waveforms))
        padded = pad_sequence([torch.from_numpy(each) for each in waveforms], batch_first=True)
        num_samples = torch.tensor([len(each) for each in waveforms], device=self.device)
        log_probs, lengths = self(padded.to(self.device), num_samples)
        return log_probs, lengths

    def memory_needed(
        self, num_samples: int, num_waveforms: int = 1, num_seen: int | None = None
    ) -> int:
        """Estimate what a batch takes of memory at most, from waveforms to log-probabilities.

        It counts the largest tensors that are alive at once in each stage, of which the first
        convolution's output is usually the widest. Waveforms count as they are held and as padded.

        Args:
            num_samples: of the longest waveform.
            num_waveforms: of the batch.
            num_seen: feature frames that the network sees at once; None for all.

        Returns:
            [bytes]
        """
        model, mels = self.model, self.features.n_mels
        layers: list[Any] = list(model.layers)
        first: Any = model.subsampling.convolutions[0]
        frames = int(self.features.frame_count(torch.tensor(num_samples)))
        seen = frames if num_seen is None else min(frames, num_seen)
        steps = int(model.subsampling.output_length(torch.tensor(seen)))
        # Numbers, of a waveform.
        convolved = first.out_channels * -(-seen // first.stride[0]) * -(-mels // first.stride[1])
        widest = max(model.subsampling.output_size, *(layer.output_size for layer in layers))
        gates = max(4 * layer.hidden_size * layer.num_directions for layer in layers)
        stages = (
            2.25 * num_samples + 2 * frames * mels,  # masked, scaled and padded once more
            seen * mels + 2 * convolved,  # before and after ReLU
            steps * max(3 * widest, 2 * widest + gates),
            steps * (widest + 3 * model.head.out_features),
        )
        numbers = 2 * num_samples + frames * mels + max(stages)
        return int(SPARE * 4 * num_waveforms * numbers) + FIXED_BYTES

    def require_memory(
        self,
        num_samples: int,
        num_waveforms: int = 1,
        num_seen: int | None = None,
        name: str = "",
    ) -> None:
        """Refuse audio that would not fit into the memory of the model's device.

        Args:
            num_samples: of the longest waveform.
            num_waveforms: of the batch.
            num_seen: feature frames that the network sees at once; None for all.
            name: of the recording, for the message.

        Raises:
            ValueError: less is available.
        """
        there = available_memory()
        if self.device.type == "cuda":
            # What torch has taken and holds for tensors to come counts as free.
            held = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(
                self.device
            )
            there = torch.cuda.mem_get_info(self.device)[0] + held
        where = f"{name}: " if name else ""
        many = f"{num_waveforms} recordings of up to " if num_waveforms > 1 else ""
        what = f"{where}{many}{num_samples / self.sample_rate:g} s of audio"
        require_memory(self.memory_needed(num_samples, num_waveforms, num_seen), what, there)


def lexicon_fields(lexicon: Lexicon) -> dict[str, Any]:
    """Tell a lexicon as `ModelSpec` has it."""
    return {"phones": dict(lexicon.phones), "lexicon": "\n".join(lexicon.lines())}


def _lexicon(spec: ModelSpec) -> Lexicon | None:
    """The lexicon of a model of phones.

    Raises:
        ValueError: phones that the alphabet has not, or a lexicon of others.
    """
    if not spec.phones:
        if spec.lexicon:
            raise ValueError("a lexicon without phones, expected a model of phones")
        return None
    if not set(spec.phones) <= set(spec.alphabet):
        raise ValueError(
            f"phones {shown(sorted(spec.phones))}, expected characters of the alphabet"
        )
    lines = enumerate(spec.lexicon.encode().split(b"\n"), 1)
    return parse_lexicon(lines, "lexicon", spec.phones)


def choose_device(name: str = "auto") -> torch.device:
    """Find a device by name; "auto" is cuda where there is one, else cpu.

    Raises:
        ValueError: a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} is not available on this machine") from error
    return device


def _part(
    known: Mapping[str, Callable[..., nn.Module]], what: str, part: Part, **derived: Any
) -> Any:
    """Build the module that a part of a spec describes."""
    if part.name not in known:
        raise ValueError(f"{what} {shown(part.name)}, expected one of {', '.join(known)}")
    for name, value in part.arguments.items():
        bound = MAX_OF.get(name, MAX_ARGUMENT)
        if isinstance(value, int | float) and not abs(value) <= bound:
            raise ValueError(f"{what}: {name} is {value!r}, expected at most {bound}")
    return construct(known[part.name], what, {**part.arguments, **derived})


def construct(constructor: Callable[..., Any], what: str, arguments: Mapping[str, Any]) -> Any:
    """Call a constructor with arguments out of a file, each checked by its annotation.

    Raises:
        ValueError: an argument of another type, too long a text, or what the constructor refuses.
    """
    for name, value in arguments.items():
        if isinstance(value, str) and not (len(value) <= MAX_ARGUMENT_TEXT and value.isprintable()):
            raise ValueError(
                f"{what}.{name} is {shown(value)}, expected at most {MAX_ARGUMENT_TEXT} printable "
                "characters"
            )
    return constructor(**check_arguments(constructor, arguments, what))
