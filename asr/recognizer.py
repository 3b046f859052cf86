"""The recogniser: what turns waveforms into log-probabilities, built from a plain description."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from asr.features import LogMel
from asr.memory import available_memory, require_memory
from asr.model import BiLstmCtc
from asr.model.bilstm_ctc import CHUNKS_AT_ONCE, LiveState
from asr.model_spec import ModelSpec, Part, construct
from asr.speech_model import Lengths, LogProbs, SpeechModel, Timing, Waveform
from asr.untrusted import shown

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


class LiveRun(NamedTuple):
    """What a recogniser remembers of streams.

    Attributes:
        normalizer: of the features; None at the beginning.
        network: of the model.
    """

    normalizer: Tensor | None
    network: LiveState


class Recognizer(nn.Module, SpeechModel):
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
        self.describe(spec)
        # Windows and filterbanks are derived, not stored: real even where the weights are not yet.
        with torch.device("cpu"):
            self.features = build_features(spec)
        sizes = {"n_mels": self.features.n_mels, "vocab_size": self.tokenizer.vocab_size}
        self.model = _part(MODELS, "model", spec.model, **sizes)
        features, model = self.features, self.model
        self.timing = Timing(
            features.sample_rate, features.hop_length, features.win_length, features.center,
            model.subsampling_factor, model.upsampling, model.live_extra, model.live_delay,
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Where it lives."""
        return self.features.window.device

    @property
    def is_live(self) -> bool:
        """Whether it reads forwards alone, and so runs on a stream without hearing it twice."""
        layers: list[Any] = list(self.model.layers)
        return self.features.is_live and all(layer.num_directions == 1 for layer in layers)

    @property
    def runs_on(self) -> str:
        """The device, for people."""
        return str(self.device)

    @property
    def num_parameters(self) -> int:
        """Numbers that were learnt."""
        return sum(parameter.numel() for parameter in self.model.parameters())

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
    ) -> tuple[LogProbs, Lengths]:
        """Run recordings of any length, in evaluation mode and without gradients.

        With `chunk_s`, a recording that is longer is run through the network in chunks, in memory
        that does not grow with it but for features and result. Each chunk is run with CONTEXT_S
        around it, whose output is thrown away: the first and last frames of a chunk then see nearly
        as much before and after them as in the whole.

        Args:
            waveforms: at least one, each `(num_samples,)` float32 at `sample_rate`.
            chunk_s: of the longest stretch that the network sees at once, without its context [s];
                None runs all as one batch.

        Returns:
            log_probs `(B, T, V)` float32 and log_prob_lengths `(B,)` int64 [output frames]; no row
            depends on the others.

        Raises:
            ValueError: they would not fit into memory.
        """
        self.eval()
        if chunk_s is not None:
            chunk = round(chunk_s / self.features.frame_shift_s)
            context = round(CONTEXT_S / self.features.frame_shift_s)
            rows = []
            for waveform in waveforms:
                self.require_memory(len(waveform), num_seen=CHUNKS_AT_ONCE * (chunk + 2 * context))
                samples = torch.from_numpy(waveform).to(self.device)[None]
                size = torch.tensor([len(waveform)], device=self.device)
                features, _ = self.features(samples, size)  # (1, T, F)
                rows.append(self.model.log_probs_in_chunks(features[0], chunk, context).cpu())
            sizes = np.array([len(row) for row in rows])
            return pad_sequence(rows, batch_first=True).numpy(), sizes
        self.require_memory(max(map(len, waveforms)), len(waveforms))
        padded = pad_sequence([torch.from_numpy(each) for each in waveforms], batch_first=True)
        num_samples = torch.tensor([len(each) for each in waveforms], device=self.device)
        log_probs, lengths = self(padded.to(self.device), num_samples)
        return log_probs.cpu().numpy(), lengths.cpu().numpy()

    def begin(self, num_streams: int = 1) -> LiveRun:
        """Begin streams, for `step`.

        Raises:
            ValueError: a model that is not live.
        """
        if not self.is_live:
            raise ValueError(
                "a model that reads backwards, or features of the whole waveform, expected a model "
                "of one direction with features=log_mel_live"
            )
        self.eval()
        return LiveRun(None, self.model.begin(num_streams))

    @torch.inference_mode()
    def step(
        self, samples: NDArray[np.float32], num_frames: Lengths, state: LiveRun
    ) -> tuple[LogProbs, LiveRun]:
        """Run the next feature frames of streams; see `SpeechModel.step`."""
        features, normalizer = self.features.step(
            torch.from_numpy(samples).to(self.device), self.timing.live_extra, state.normalizer
        )
        valid = torch.from_numpy(num_frames).to(self.device)
        log_probs, network = self.model.step(features, valid, state.network)
        return log_probs.cpu().numpy(), LiveRun(normalizer, network)

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


def build_features(spec: ModelSpec) -> LogMel:
    """Build the features of a model, without statistics of its normaliser.

    Raises:
        ValueError: unknown features or an argument that their constructor refuses.
    """
    features: LogMel = _part(FEATURES, "features", spec.features)
    return features


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
