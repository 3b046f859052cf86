"""Waveforms to normalised log-mel features, the same alone and in any batch."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CPU_FRAMES = 32  # of each clip, transformed at once on a CPU
GPU_FRAMES = 1 << 14  # on a GPU: utterances whole, and an hour in memory that does not grow with it
# [nats] A mel bin that hardly moves (silence, a missing band) is centred but not blown up.
STD_FLOOR = 1e-2
NORMALIZERS = ("active", "utterance", "pcen", "stored", "none")
ACTIVE_DB = 25.0  # [dB] below the mean of the active frames, where a voice ends
ACTIVE_ROUNDS = 2
LOWEST = 3.0  # deviations below the voice: what is softer is cut off
PCEN_SMOOTHING = 0.025  # of a frame: M follows within 0.4 s at 10 ms
PCEN_GAIN, PCEN_BIAS, PCEN_POWER = 0.98, 2.0, 0.5
PCEN_EPSILON = 1e-9  # of energy: ten times the floor of silence
PCEN_BLOCK = 64  # frames
MEAN_STEP = 2.0**-13  # of full scale: nothing notices less of an offset


class LogMel(nn.Module):
    """Computes the natural logarithm of mel-filtered power spectra, normalised.

    Before normalisation, with the defaults the values equal librosa's
    `log(melspectrogram(center=True, pad_mode="constant"))`; with `center=False, mel_scale="kaldi",
    window="povey", preemphasis=0.97, remove_dc_offset=True, scale=32768, log_floor=1.1920929e-07`
    they equal Kaldi's `compute-fbank-feats` without dither.

    Beside its window, a frame depends on its own utterance's mean alone: features depend neither on
    the padding nor on the neighbours in a batch.

    Args:
        sample_rate: [Hz].
        n_mels: number of mel bins F.
        frame_length_ms: analysis window [ms].
        frame_shift_ms: hop between frames [ms].
        f_min: lower edge of the lowest filter [Hz].
        f_max: upper edge of the highest filter [Hz]; None is half the sample rate.
        n_fft: length of the Fourier transform [samples]; None is the next power of two.
        mel_scale: "slaney", "htk" or "kaldi".
        window: "hann" (periodic) or "povey" (Kaldi's, symmetric).
        center: True: frame t is centred on sample t * hop_length, zeros beyond the ends, every clip
            has 1 + num_samples // hop_length frames. False: whole windows only (Kaldi's
            snip_edges).
        preemphasis: coefficient of the first difference within a frame, 0 for none.
        remove_dc_offset: subtract each frame's mean.
        remove_mean: subtract each waveform's mean first: an offset, which a cheap sound card adds,
            carries no sound, but makes a step at both ends.
        scale: factor on the waveform; 32768 gives Kaldi's 16-bit range.
        log_floor: smallest power before the logarithm; keeps silence finite.
        normalizer: "active" (each utterance by mean and deviation of its voice), "utterance" (of
            all of its frames), "pcen" (by what came lately; works on a stream), "stored" (by those
            of the training data; works on a stream) or "none".

    Raises:
        ValueError: lengths, a band or a name that make no sense.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(
        self,
        sample_rate: int = 16_000,
        n_mels: int = 80,
        frame_length_ms: float = 25.0,
        frame_shift_ms: float = 10.0,
        f_min: float = 20.0,
        f_max: float | None = None,
        n_fft: int | None = None,
        mel_scale: str = "slaney",
        window: str = "hann",
        center: bool = True,
        preemphasis: float = 0.0,
        remove_dc_offset: bool = False,
        remove_mean: bool = True,
        scale: float = 1.0,
        log_floor: float = 1e-10,
        normalizer: str = "utterance",
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.win_length = round(frame_length_ms * sample_rate / 1000)
        self.hop_length = round(frame_shift_ms * sample_rate / 1000)
        self.n_fft = n_fft or 1 << (self.win_length - 1).bit_length()
        self.center = center
        self.preemphasis = preemphasis
        self.remove_dc_offset = remove_dc_offset
        self.remove_mean = remove_mean
        self.scale = scale
        self.log_floor = log_floor
        self.normalizer = make_normalizer(normalizer, n_mels)
        if not 0 < self.hop_length <= self.win_length <= self.n_fft:
            raise ValueError(
                f"frame_shift_ms {frame_shift_ms:g}, frame_length_ms {frame_length_ms:g}, n_fft "
                f"{self.n_fft}: expected 0 < shift <= length <= n_fft "
                f"({self.win_length} samples or more)"
            )
        if not log_floor > 0:
            raise ValueError(f"log_floor {log_floor:g}, expected more than 0")
        top = sample_rate / 2 if f_max is None else f_max
        bank = mel_filterbank(mel_scale, n_mels, self.n_fft, sample_rate, f_min, top)
        # Derived from the settings, so no part of a checkpoint.
        self.register_buffer("filterbank", bank, persistent=False)
        if window not in ("hann", "povey"):
            raise ValueError(f"window {window!r}, expected 'hann' or 'povey'")
        hann = torch.hann_window(self.win_length, window == "hann", dtype=torch.float64)
        shape = hann if window == "hann" else hann.pow(0.85)
        self.register_buffer("window", shape, persistent=False)

    @property
    def frame_shift_s(self) -> float:
        """Time between frames [s]."""
        return self.hop_length / self.sample_rate

    def frame_count(self, num_samples: Tensor) -> Tensor:
        """Count the frames of waveforms of these lengths.

        Args:
            num_samples: int64, any shape [samples].

        Returns:
            int64, the same shape [frames].
        """
        if self.center:
            return num_samples // self.hop_length + 1
        return ((num_samples - self.win_length) // self.hop_length + 1).clamp(min=0)

    def forward(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute normalised features; arguments and result as in `log_mel`."""
        features, lengths = self.log_mel(waveforms, num_samples)
        return self.normalizer(features, lengths), lengths

    def log_mel(self, waveforms: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features before normalisation.

        Args:
            waveforms: `(B, max(num_samples))` float32; what lies beyond a clip's end is ignored.
            num_samples: `(B,)` int64 [samples].

        Returns:
            features `(B, T, F)` float32, zero beyond each clip's frames, and feature_lengths `(B,)`
            int64 [frames].
        """
        lengths = self.frame_count(num_samples)
        inside = torch.arange(waveforms.shape[1], device=waveforms.device) < num_samples[:, None]
        # where, not a product: NaN in the padding must not spread.
        waveforms = torch.where(inside, waveforms, 0.0)
        if self.remove_mean:
            # In float64 and rounded, so that not even the order of the sum depends on the padding.
            mean = waveforms.sum(dim=1, dtype=torch.float64) / num_samples.clamp(min=1)
            mean = ((mean / MEAN_STEP).round() * MEAN_STEP).to(waveforms.dtype)
            waveforms = torch.where(inside, waveforms - mean[:, None], 0.0)
        waveforms = waveforms * self.scale
        before, after = 0, max(self.win_length - waveforms.shape[1], 0)
        if self.center:
            before = (self.win_length + 1) // 2  # odd lengths as in librosa and torch.stft
            after = self.win_length - before
        padded = nn.functional.pad(waveforms, (before, after))
        frames = padded.unfold(-1, self.win_length, self.hop_length)  # (B, T, win_length)
        num_frames = int(lengths.max())
        assert num_frames <= frames.shape[1], "num_samples beyond the waveforms' width"
        # At least one: no transform of no frames at all.
        features = self._of_frames(frames[:, : max(num_frames, 1)])[:, :num_frames]
        valid = torch.arange(num_frames, device=features.device) < lengths[:, None]
        return torch.where(valid[..., None], features, 0.0), lengths

    @property
    def is_live(self) -> bool:
        """Whether no frame depends on later ones, so that features can be made of a stream."""
        return not self.remove_mean and isinstance(self.normalizer, NoNormalizer | StoredNormalizer)

    def step(
        self, samples: Tensor, num_again: int, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the next normalised features of streams.

        Args:
            samples: `(B, n)` of T frames, (T - 1) * hop_length + win_length of them. Before the
                first ones of a stream come (win_length + 1) // 2 zeros where frames are centred.
            num_again: frames at the end that come again at the beginning of the next step.
            state: what the step before returned; None at the beginning.

        Returns:
            features `(B, T, F)`, and the state.

        Raises:
            ValueError: features that need the whole waveform.
        """
        if not self.is_live:
            raise ValueError(
                "features that need the whole waveform, expected remove_mean=false and "
                "normalizer pcen, stored or none"
            )
        frames = (samples * self.scale).unfold(-1, self.win_length, self.hop_length)
        features = self._of_frames(frames)
        normalizer: Any = self.normalizer
        num_new = features.shape[1] - num_again
        normal, state = normalizer.step(features[:, :num_new], state)
        if num_again:
            again, _ = normalizer.step(features[:, num_new:], state)
            normal = torch.cat([normal, again], dim=1)
        return normal, state

    def _of_frames(self, frames: Tensor) -> Tensor:
        """Log-mel features `(B, T, F)` of frames of samples `(B, T, win_length)`, scaled."""
        # A few frames at a time stay in a CPU's cache: less than half the time there.
        at_once = CPU_FRAMES if frames.device.type == "cpu" else GPU_FRAMES
        parts = [
            self._power(part) @ self.filterbank for part in torch.split(frames, at_once, dim=1)
        ]
        return torch.cat(parts, dim=1).clamp(min=self.log_floor).log()

    def _power(self, frames: Tensor) -> Tensor:
        # In float64: rounding to float32 would fill bands without sound (above a codec's cutoff)
        # with errors of their own, other ones on each device.
        frames = frames.double()
        if self.remove_dc_offset:
            frames = frames - frames.mean(dim=-1, keepdim=True)
        if self.preemphasis:
            previous = torch.cat((frames[..., :1], frames[..., :-1]), dim=-1)
            frames = frames - self.preemphasis * previous
        spectrum = torch.fft.rfft(frames * self.window, n=self.n_fft)
        # Not a sum over the pair of parts: reducing an axis of two takes longer than the transform.
        power: Tensor = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        return power.float()


@cache
def import_torchaudio() -> ModuleType:
    """Import torchaudio, also where its compiled extension does not load.

    torchaudio's wheels are linked against CUDA's libraries: beside a CPU build of torch the import
    raises OSError. Filterbanks, transforms and the Kaldi features are plain Python and need no
    extension, so a stub takes its place; forced_align and the RNN-T loss stay unavailable there.
    """
    try:
        return importlib.import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        stub = ModuleType("torchaudio._extension")
        stub._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        stub._IS_RIR_AVAILABLE = False  # type: ignore[attr-defined]
        stub._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
        stub._check_cuda_version = lambda: None  # type: ignore[attr-defined]
        stub.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
        sys.modules["torchaudio._extension"] = stub
        return importlib.import_module("torchaudio")


def mel_filterbank(
    kind: str, n_mels: int, n_fft: int, sample_rate: int, f_min: float, f_max: float
) -> Tensor:
    """Make triangular mel filters over the bins of a power spectrum.

    Args:
        kind: "slaney" (librosa's default: mel scale and area norm of Slaney's Auditory Toolbox),
            "htk" (HTK's mel scale, peaks of one) or "kaldi" (HTK's scale, triangles straight in mel
            instead of in hertz).
        n_mels: number of filters F.
        n_fft: length of the Fourier transform [samples].
        sample_rate: [Hz].
        f_min: lower edge of the first filter [Hz].
        f_max: upper edge of the last filter [Hz].

    Returns:
        `(n_fft // 2 + 1, F)` float32.

    Raises:
        ValueError: an unknown kind, too few filters, Kaldi's with an odd n_fft, or a band outside 0
            to half the sample rate.
    """
    if kind not in ("slaney", "htk", "kaldi"):
        raise ValueError(f"mel scale {kind!r}, expected 'slaney', 'htk' or 'kaldi'")
    fewest = 4 if kind == "kaldi" else 1
    if n_mels < fewest:
        raise ValueError(f"n_mels {n_mels}, expected at least {fewest}")
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"mel band {f_min:g} to {f_max:g} Hz, "
            f"expected 0 <= f_min < f_max <= {sample_rate / 2:g} Hz (half the sample rate)"
        )
    if kind == "kaldi":
        if n_fft % 2:
            raise ValueError(f"n_fft {n_fft}, expected an even number, as Kaldi's")
        import_torchaudio()
        kaldi = importlib.import_module("torchaudio.compliance.kaldi")
        with _float64_by_default():
            bank, _ = kaldi.get_mel_banks(
                n_mels, n_fft, float(sample_rate), f_min, f_max, 100.0, -500.0, 1.0
            )
        # Kaldi leaves out the Nyquist bin.
        return torch.nn.functional.pad(bank, (0, 1)).T.contiguous().float()
    if n_fft % 2 or sample_rate % 2:
        # torchaudio rounds half of either down, and so moves every bin; librosa, whose import takes
        # a second, does not.
        from librosa.filters import mel

        bank = mel(
            sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=kind == "htk",
            norm="slaney" if kind == "slaney" else None, dtype=np.float64,
        )  # fmt: skip
        return torch.from_numpy(bank.T).float()
    functional = import_torchaudio().functional
    with _float64_by_default():
        bank = functional.melscale_fbanks(
            n_freqs=n_fft // 2 + 1,
            f_min=f_min,
            f_max=f_max,
            n_mels=n_mels,
            sample_rate=sample_rate,
            norm="slaney" if kind == "slaney" else None,
            mel_scale=kind,
        )
    return torch.as_tensor(bank).float()


@contextmanager
def _float64_by_default() -> Iterator[None]:
    """torchaudio computes filters in the default dtype; float32 is off by 1e-5 at their feet."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class NoNormalizer(nn.Module):
    """Leaves features as they are."""

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return `(B, T, F)` features unchanged."""
        return features

    def step(self, features: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the next features of a stream unchanged."""
        return features, state


class UtteranceNormalizer(nn.Module):
    """Brings each mel bin of each utterance to mean 0 and deviation 1 over its own frames.

    Removes what stays the same in a recording (gain, microphone, room); needs the whole utterance.
    """

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Normalise.

        Args:
            features: `(B, T, F)`.
            lengths: `(B,)` int64 [frames].

        Returns:
            `(B, T, F)`, zero beyond each length, finite also for silence and for no frames.
        """
        valid = _valid(features, lengths)
        return torch.where(valid, _standardised(features, valid), 0.0)


class ActiveNormalizer(nn.Module):
    """Brings each mel bin of each utterance to mean 0 and deviation 1 over the frames of its voice.

    A frame is active where its power is at most ACTIVE_DB below the mean of the active ones, found
    in ACTIVE_ROUNDS (the active speech level of ITU-T P.56 is found alike), so pauses, silence and
    soft noise move nothing, however long they are. What lies LOWEST deviations below the voice is
    cut off: one silence looks like another. Needs the whole utterance.
    """

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Normalise.

        Args:
            features: `(B, T, F)`.
            lengths: `(B,)` int64 [frames].

        Returns:
            `(B, T, F)` of at least -LOWEST, zero beyond each length, finite also for silence and
            for no frames.
        """
        valid = _valid(features, lengths)
        # In float64: a sum in another order must not move a frame over the threshold.
        power = torch.where(valid[..., 0], features.double().exp().mean(dim=-1), 0.0)
        active = valid[..., 0]
        for _ in range(ACTIVE_ROUNDS):
            level = (power * active).sum(dim=1, keepdim=True)
            level = level / active.sum(dim=1, keepdim=True).clamp(min=1)
            active = valid[..., 0] & (power >= level * 10 ** (-ACTIVE_DB / 10))
        normal = _standardised(features, active[..., None])
        return torch.where(valid, normal.clamp(min=-LOWEST), 0.0)


class StoredNormalizer(nn.Module):
    """Normalises each mel bin by a mean and deviation measured once on the training data.

    Keeps loudness differences between utterances and works on a stream. The statistics are buffers,
    so they travel inside the model file.

    Args:
        n_mels: number of mel bins F.
    """

    mean: Tensor
    std: Tensor
    is_measured: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))
        self.register_buffer("is_measured", torch.tensor(False))

    def measure(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set mean and standard deviation from batches of features.

        Args:
            batches: pairs of features `(B, T, F)` and lengths `(B,)` int64 [frames].

        Raises:
            ValueError: where the batches hold no frame.
        """
        count = 0
        total = torch.zeros(self.mean.shape, dtype=torch.float64)
        squares = torch.zeros(self.mean.shape, dtype=torch.float64)
        for features, lengths in batches:
            shown, _ = self.compress(features)
            frames = shown[_valid(features, lengths).squeeze(-1)].double().cpu()  # (N, F)
            count += len(frames)
            total += frames.sum(dim=0)
            squares += frames.square().sum(dim=0)
        if not count:
            raise ValueError("no frames to measure feature statistics on, expected at least one")
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=STD_FLOOR)
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.is_measured.fill_(True)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Normalise `(B, T, F)` features; zero beyond each length.

        Raises:
            ValueError: before the statistics were measured or loaded.
        """
        normal, _ = self.step(features, None)
        return torch.where(_valid(features, lengths), normal, 0.0)

    def step(self, features: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Normalise the next features `(B, T, F)` of a stream.

        Args:
            features: `(B, T, F)`.
            state: what the step before returned; None at the beginning.

        Raises:
            ValueError: before the statistics were measured or loaded.
        """
        if not self.is_measured:
            raise ValueError(
                "feature statistics are not measured, expected measure() or a model file"
            )
        shown, state = self.compress(features, state)
        return (shown - self.mean) / self.std, state

    def compress(
        self, features: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What is measured and normalised of `(B, T, F)` log-mel features: they themselves."""
        return features, state


class PcenNormalizer(StoredNormalizer):
    """Per-channel energy normalisation: divides each mel bin by what it was lately, and compresses.

    `(E / (eps + M) ** gain + bias) ** power - bias ** power`, where M follows the energy E by
    `M[t] = (1 - s) * M[t - 1] + s * E[t]`, from the first frame's energy (Wang et al., "Trainable
    frontend for robust and far-field keyword spotting", ICASSP 2017). No frame sees a later one, so
    it works on a stream, and the level hardly matters. The result is normalised by the mean and
    deviation of the training data.

    Args:
        n_mels: number of mel bins F.
    """

    weights: Tensor
    carry: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__(n_mels)
        # A block of frames at once: what each adds to the later ones, and what the last M leaves.
        step = torch.arange(PCEN_BLOCK, dtype=torch.float64)
        lag = step[:, None] - step
        kept = (1 - PCEN_SMOOTHING) ** lag.clamp(min=0)
        weights = torch.where(lag >= 0, PCEN_SMOOTHING * kept, 0.0)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("carry", (1 - PCEN_SMOOTHING) ** (step + 1), persistent=False)

    def compress(
        self, features: Tensor, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Compute PCEN.

        Args:
            features: `(B, T, F)`, the logarithm of energies.
            state: the last M before them, `(B, 1, F)`; None at the beginning.

        Returns:
            `(B, T, F)` float32, before normalisation, and the last M.
        """
        energy = features.double().exp()
        smooth, parts = energy[:, :1] if state is None else state, []
        for part in torch.split(energy, PCEN_BLOCK, dim=1):
            count = part.shape[1]
            own = torch.einsum("ts,bsf->btf", self.weights[:count, :count], part)
            parts.append(own + self.carry[:count, None] * smooth[:, -1:])
            smooth = parts[-1]
        ratio = energy / (PCEN_EPSILON + torch.cat(parts, dim=1)) ** PCEN_GAIN
        compressed: Tensor = (ratio + PCEN_BIAS) ** PCEN_POWER - PCEN_BIAS**PCEN_POWER
        return compressed.to(features.dtype), smooth[:, -1:]


def make_normalizer(kind: str, n_mels: int) -> nn.Module:
    """Build a normaliser.

    Args:
        kind: one of NORMALIZERS.
        n_mels: number of mel bins F.

    Raises:
        ValueError: another kind.
    """
    match kind:
        case "active":
            return ActiveNormalizer()
        case "utterance":
            return UtteranceNormalizer()
        case "pcen":
            return PcenNormalizer(n_mels)
        case "stored":
            return StoredNormalizer(n_mels)
        case "none":
            return NoNormalizer()
    *most, last = map(repr, NORMALIZERS)
    raise ValueError(f"normalizer {kind!r}, expected {', '.join(most)} or {last}")


def _standardised(features: Tensor, chosen: Tensor) -> Tensor:
    """`(B, T, F)` features less the mean, over the deviation, of the `(B, T, 1)` chosen frames."""
    count = chosen.sum(dim=1, keepdim=True).clamp(min=1)
    mean = torch.where(chosen, features, 0.0).sum(dim=1, keepdim=True) / count
    centred = features - mean
    variance = torch.where(chosen, centred, 0.0).square().sum(dim=1, keepdim=True) / count
    return centred / variance.sqrt().clamp(min=STD_FLOOR)


def _valid(features: Tensor, lengths: Tensor) -> Tensor:
    """`(B, T, 1)` bool: True on frames of the utterance."""
    return (torch.arange(features.shape[1], device=features.device) < lengths[:, None])[..., None]
