"""Audio to transcripts with word times, on one engine for files and batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.audio import load_audio, probe
from asr.checkpoint import Recognizer, load_model
from asr.decoder import Greedy, Hypothesis
from asr.memory import available_memory, require_memory

Waveform = NDArray[np.float32]

SPARE = 1.15  # of memory: what the libraries take besides
FIXED_BYTES = 64 << 20  # for their buffers, however short a recording is


class Decoder(Protocol):
    """Log-probabilities `(B, T, V)` and lengths `(B,)` to hypotheses, best first, an utterance."""

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]: ...


@dataclass(frozen=True)
class Word:
    """A recognised word.

    Attributes:
        word: its characters.
        start: of its first character on the CTC path [s].
        end: of its last character on the CTC path [s].
        confidence: geometric mean of its characters' probabilities, 0 to 1; what the transcriber's
            `calibrate` makes of it, where it has one.
    """

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Transcript:
    """What was said.

    Attributes:
        text: the words with single spaces between.
        words: with times.
        duration: of the audio [s].
    """

    text: str
    words: tuple[Word, ...]
    duration: float


def choose_device(name: str = "auto") -> torch.device:
    """A device by name; "auto" is cuda where there is one, else cpu.

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


def memory_needed(
    recognizer: Recognizer, num_samples: int, num_waveforms: int = 1, num_seen: int | None = None
) -> int:
    """What a batch takes of memory at most, on its way from waveforms to log-probabilities.

    An estimate: the largest tensors that are alive at once in each stage, of which the first
    convolution's output is usually the widest. Waveforms count as they are held and as padded.

    Args:
        recognizer: the model.
        num_samples: of the longest waveform.
        num_waveforms: of the batch.
        num_seen: feature frames that the network sees at once; None for all.

    Returns:
        [bytes]
    """
    model, mels = recognizer.model, recognizer.features.n_mels
    layers: list[Any] = list(model.layers)
    first: Any = model.subsampling.convolutions[0]
    frames = int(recognizer.features.frame_count(torch.tensor(num_samples)))
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


def require_memory_for(recognizer: Recognizer, what: str, num_bytes: int) -> None:
    """Refuse audio that would not fit into the memory of the model's device.

    Args:
        recognizer: the model.
        what: the audio, for the message.
        num_bytes: of `memory_needed`.

    Raises:
        ValueError: less is available.
    """
    device = recognizer.features.window.device
    there = available_memory()
    if device.type == "cuda":
        # What torch has taken and holds for tensors to come counts as free.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        there = torch.cuda.mem_get_info(device)[0] + held
    require_memory(num_bytes, what, there)


class Transcriber:
    """Turns waveforms and audio files into transcripts.

    Args:
        recognizer: a trained model.
        decoder: log-probabilities to hypotheses; None is greedy.
        calibrate: confidence of a word to the probability that it is right, 0 to 1 both; None
            leaves it as it is.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        decoder: Decoder | None = None,
        calibrate: Callable[[float], float] | None = None,
    ) -> None:
        self.recognizer = recognizer.eval()
        self.decoder = decoder or Greedy()
        self.calibrate = calibrate
        self.sample_rate = recognizer.features.sample_rate

    @classmethod
    def load(
        cls, model_file: Path | str, device: str = "auto", decoder: Decoder | None = None
    ) -> Transcriber:
        """A transcriber of a model file.

        Raises:
            ValueError: no model file, or no such device.
            OSError: missing or unreadable.
        """
        recognizer, _ = load_model(Path(model_file), choose_device(device))
        return cls(recognizer, decoder)

    def transcribe_file(self, source: Path | str | bytes) -> Transcript:
        """Transcribe an audio file, or the bytes of one.

        Raises:
            ValueError: audio that cannot be read, or that would not fit into memory.
            OSError: missing or unreadable.
        """
        # Before it is decoded: a file of some kilobytes may hold hours.
        duration = probe(source).duration
        name = f"<{len(source)} bytes of audio>" if isinstance(source, bytes) else source
        self._require_memory(math.ceil(duration * self.sample_rate), 1, f"{name}: ")
        return self.transcribe([load_audio(source, self.sample_rate)])[0]

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcript]:
        """Transcribe waveforms in one batch.

        Args:
            waveforms: each `(num_samples,)` float32 at `sample_rate`.

        Returns:
            A transcript each, in order; none depends on the others.

        Raises:
            ValueError: they would not fit into memory.
        """
        if not waveforms:
            return []
        log_probs, lengths = self.emit(waveforms)
        hypotheses = self.decoder(log_probs, lengths)
        return [
            self._transcript(best[0], len(waveform) / self.sample_rate)
            for best, waveform in zip(hypotheses, waveforms, strict=True)
        ]

    def emit(self, waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
        """What the model makes of waveforms, in one batch.

        Args:
            waveforms: at least one, each `(num_samples,)` float32 at `sample_rate`.

        Returns:
            log_probs `(B, T, V)` [nats] and their lengths `(B,)` int64 [output frames].

        Raises:
            ValueError: they would not fit into memory.
        """
        self._require_memory(max(map(len, waveforms)), len(waveforms), "")
        device = self.recognizer.features.window.device
        padded = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(waveform) for waveform in waveforms], batch_first=True
        )
        num_samples = torch.tensor([len(waveform) for waveform in waveforms])
        with torch.inference_mode():
            log_probs, lengths = self.recognizer(padded.to(device), num_samples.to(device))
        return log_probs, lengths

    def _require_memory(self, num_samples: int, num_waveforms: int, where: str) -> None:
        many = f"{num_waveforms} recordings of up to " if num_waveforms > 1 else ""
        what = f"{where}{many}{num_samples / self.sample_rate:g} s of audio"
        needed = memory_needed(self.recognizer, num_samples, num_waveforms)
        require_memory_for(self.recognizer, what, needed)

    def _transcript(self, hypothesis: Hypothesis, duration: float) -> Transcript:
        words: list[Word] = []
        current: list[int] = []
        characters = [self.recognizer.tokenizer.decode([token]) for token in hypothesis.tokens]
        for position, character in enumerate([*characters, " "]):
            if character != " ":
                current.append(position)
            elif current:
                earliest = words[-1].end if words else 0.0
                words.append(self._word(hypothesis, characters, current, earliest, duration))
                current = []
        return Transcript(" ".join(word.word for word in words), tuple(words), duration)

    def _word(
        self,
        hypothesis: Hypothesis,
        characters: list[str],
        positions: list[int],
        earliest: float,
        duration: float,
    ) -> Word:
        shift = self.recognizer.frame_shift_s
        mean = math.fsum(hypothesis.log_probs[p] for p in positions) / len(positions)
        confidence, calibrate = math.exp(mean), self.calibrate
        # The last output frames may lie past the end of the audio, where padding filled them up.
        end = min(hypothesis.ends[positions[-1]] * shift, duration)
        start = max(min(hypothesis.starts[positions[0]] * shift, end - shift), earliest)
        return Word(
            word="".join(characters[p] for p in positions),
            start=round(start, 3),
            end=round(end, 3),
            confidence=round(confidence if calibrate is None else calibrate(confidence), 4),
        )
