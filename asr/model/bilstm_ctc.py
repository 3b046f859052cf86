"""The acoustic model: features to log-probabilities of characters and the CTC blank.

First the model, then its parts from the bottom to the top: convolutions that subsample, norms
between layers, and what a model of one direction sees of the future.
"""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from asr.model.dropout import Dropout
from asr.model.lengths import length_mask, mask_padding, subsampled_length
from asr.model.lstm import LSTM

# Strides of the convolutions that make up each factor of subsampling.
STRIDES = {1: (1,), 2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}
CHUNKS_AT_ONCE = 4  # of a long recording, in a batch
# oneDNN keeps what it compiled for up to 1024 shapes of batches, of which hardly two are the same:
# 100 MB in hours of transcribing, 1 GB in hours of training. It looks here when it is first used.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")


class LiveState(NamedTuple):
    """What a model of one direction remembers of a stream, of B streams side by side.

    Attributes:
        num_frames: `(B,)` int64, feature frames that have come, at most as many as `tail` has.
        tail: `(B, K, F)`, the last of them, which the convolutions see again.
        h: `(num_layers, B, R)`, of the LSTM layers.
        c: `(num_layers, B, H)`.
        ahead: `(B, lookahead, width)`, frames of the last layer whose future has not come yet.
    """

    num_frames: Tensor
    tail: Tensor
    h: Tensor
    c: Tensor
    ahead: Tensor


class BiLstmCtc(nn.Module):
    """Convolutional subsampling, stacked LSTM layers and a linear CTC head.

    Always returns log-probabilities, in training and evaluation alike, and they depend neither on
    padding nor (outside batch normalisation's training mode) on the other utterances of the batch.

    Args:
        n_mels: mel bins F of the features.
        vocab_size: V, characters and the blank.
        subsampling: feature frames for one LSTM frame, 1, 2, 3, 4 or 8.
        upsampling: output frames that the head reads off one LSTM frame. 2 with subsampling 8 runs
            the LSTM at 80 ms a step while CTC still has a frame every 40 ms, enough for characters.
        channels: channels of the subsampling convolutions.
        hidden_size: units H of a layer and direction.
        num_layers: LSTM layers.
        dropout: share of the units dropped after every layer in training.
        norm: "none", "batch" or "layer", before the first layer and after every one.
        bidirectional: False gives a model that can run on a live stream, with `lookahead`.
        lookahead: future LSTM frames that a learnt filter of each unit sees above the last layer
            (Wang et al., "Lookahead convolution layer for unidirectional recurrent neural
            networks", ICLR workshop 2016); 0 for none, and always 0 when bidirectional.
        cell: of the LSTM layers, as the following; see `LSTM`.
        proj_size: width of a direction's output where the cell projects.
        recurrent_dropout: share of what the recurrent matrix reads that is dropped in training.
        zoneout: share of the state that is kept from one frame to the next in training.
        coupled_gates: the input gate is 1 - f.
        forget_bias: of a fresh layer's forget gates.
        backend: one by name, or "auto".

    Raises:
        ValueError: a size below 1, a lookahead below 0 or in a bidirectional model, or an argument
            that a layer refuses.
    """

    def __init__(
        self,
        n_mels: int,
        vocab_size: int,
        subsampling: int = 4,
        upsampling: int = 1,
        channels: int = 32,
        hidden_size: int = 256,
        num_layers: int = 3,
        dropout: float = 0.1,
        norm: str = "layer",
        bidirectional: bool = True,
        lookahead: int = 0,
        cell: str = "lstm",
        proj_size: int = 0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        coupled_gates: bool = False,
        forget_bias: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        sizes = {
            "n_mels": n_mels, "vocab_size": vocab_size, "upsampling": upsampling,
            "channels": channels, "num_layers": num_layers,
        }  # fmt: skip
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} {size}, expected 1 or more")
        if lookahead < 0:
            raise ValueError(f"lookahead {lookahead}, expected 0 or more")
        if bidirectional and lookahead:
            raise ValueError(f"lookahead {lookahead} in a bidirectional model, expected 0")
        self.vocab_size = vocab_size
        self.upsampling = upsampling
        self.subsampling = ConvSubsampling(n_mels, channels, subsampling)
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        width = self.subsampling.output_size
        self.input_norm = MaskedNorm(norm, width)
        for _ in range(num_layers):
            layer = LSTM(
                width, hidden_size, batch_first=True, bidirectional=bidirectional,
                proj_size=proj_size, cell=cell, backend=backend,
                recurrent_dropout=recurrent_dropout, zoneout=zoneout, coupled_gates=coupled_gates,
                forget_bias=forget_bias,
            )  # fmt: skip
            width = layer.output_size
            self.layers.append(layer)
            self.norms.append(MaskedNorm(norm, width))
        self.dropout = Dropout(dropout)
        self.lookahead = LookaheadConv(width, lookahead) if lookahead else None
        self.head = nn.Linear(width, vocab_size * upsampling)
        self.subsampling_factor = subsampling  # feature frames per LSTM frame
        self.frame_ratio = subsampling / upsampling  # feature frames per output frame

    @property
    def blocks(self) -> tuple[tuple[nn.Module, ...], ...]:
        """What learns, from the bottom to the top, each with the norm that follows it.

        The subsampling, every LSTM layer, the head with the lookahead: num_layers + 2 blocks.
        """
        top = (self.head,) if self.lookahead is None else (self.lookahead, self.head)
        layers = zip(self.layers, self.norms, strict=True)
        return ((self.subsampling, self.input_norm), *layers, top)

    def output_length(self, lengths: Tensor) -> Tensor:
        """Output frames of utterances of `lengths` feature frames: int64, the same shape."""
        return self.subsampling.output_length(lengths) * self.upsampling

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run the model.

        Args:
            features: `(B, T, F)`; padding may hold anything.
            lengths: `(B,)` int64 [frames].

        Returns:
            log_probs `(B, T', V)` float32 and log_prob_lengths `(B,)` int64 [output frames].
        """
        if not features.shape[1]:  # clips shorter than a window; the layers want a frame
            features = nn.functional.pad(features, (0, 0, 0, 1))
        x, lengths = self.subsampling(features, lengths)
        x = self.input_norm(x, lengths)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x, _ = layer(x, lengths=lengths)
            x = self.dropout(norm(x, lengths))
        if self.lookahead is not None:
            x = self.lookahead(x, lengths)
        return self._log_probs(x), lengths * self.upsampling

    @property
    def live_extra(self) -> int:
        """Feature frames behind those of a step that it must see, see `step`."""
        return self.subsampling.seen_ahead

    @property
    def live_delay(self) -> int:
        """Output frames by which the first step lags behind, see `step`."""
        return self.upsampling * (0 if self.lookahead is None else self.lookahead.lookahead)

    def begin(self, batch_size: int = 1) -> LiveState:
        """Begin streams, for `step`.

        Raises:
            ValueError: a model that reads backwards, too.
        """
        layers: list[Any] = list(self.layers)
        if any(layer.num_directions > 1 for layer in layers):
            raise ValueError("a bidirectional model, expected one that reads forwards alone")
        like, step = self.head.weight, self.subsampling_factor
        kept = -(-self.subsampling.seen_behind // step) * step
        lookahead = 0 if self.lookahead is None else self.lookahead.lookahead
        width, count = layers[-1].output_size, len(layers)
        return LiveState(
            torch.zeros(batch_size, dtype=torch.int64, device=like.device),
            like.new_zeros(batch_size, kept, self.subsampling.n_mels),
            like.new_zeros(count, batch_size, layers[0].recurrent_size),
            like.new_zeros(count, batch_size, layers[0].hidden_size),
            like.new_zeros(batch_size, lookahead, width),
        )

    def step(
        self, features: Tensor, num_valid: Tensor, state: LiveState
    ) -> tuple[Tensor, LiveState]:
        """Run the next features of streams; all steps together give what `forward` gives.

        The first `live_delay` output frames of a stream are of before its beginning: the caller
        drops them. In the last step features are padded with zeros by `live_extra` and by as many
        as bring the frames of the delay, and what lies beyond the true number of output frames is
        dropped, too.

        Args:
            features: `(B, N + live_extra, F)`, N a multiple of the subsampling; the last
                `live_extra` frames come again at the beginning of the next step.
            num_valid: `(B,)` int64, how many of these exist: all of them but in the last step.
            state: what the step before returned, or `begin`.

        Returns:
            log_probs `(B, N / subsampling * upsampling, V)` float32, and the state.
        """
        kept, step = state.tail.shape[1], self.subsampling_factor
        num_new = features.shape[1] - self.live_extra
        window = torch.cat([state.tail, features], dim=1)
        x, lengths = self.subsampling(window, kept + num_valid, missing=kept - state.num_frames)
        begin = kept // step
        x = x[:, begin : begin + num_new // step]
        lengths = (lengths - begin).clamp(min=0, max=num_new // step)
        x = self.input_norm(x, lengths)
        hs, cs = [], []
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            before = state.h[number : number + 1], state.c[number : number + 1]
            x, (h, c) = layer(x, before, lengths=lengths)
            x = norm(x, lengths)
            hs.append(h)
            cs.append(c)
        ahead = torch.cat([state.ahead, mask_padding(x, lengths)], dim=1)
        if self.lookahead is not None:
            x = self.lookahead.filtered(ahead)
        new = LiveState(
            (state.num_frames + num_new).clamp(max=kept),
            window[:, num_new : num_new + kept],
            torch.cat(hs),
            torch.cat(cs),
            ahead[:, ahead.shape[1] - state.ahead.shape[1] :],
        )
        return self._log_probs(x), new

    def _log_probs(self, x: Tensor) -> Tensor:
        logits = self.head(x)  # (B, T'', upsampling * V)
        logits = logits.unflatten(-1, (self.upsampling, self.vocab_size)).flatten(1, 2)
        log_probs: Tensor = logits.float().log_softmax(dim=-1)
        return log_probs

    def log_probs_in_chunks(
        self, features: Tensor, chunk_frames: int, context_frames: int
    ) -> Tensor:
        """Run the model on one long recording, in memory that grows with the result alone.

        Each chunk is run with its neighbourhood on both sides, whose output is thrown away: the
        first and last frames of a chunk then see nearly as much before and after them as in the
        whole. What is no longer than a chunk is run as a whole, with the very same result.

        Args:
            features: `(T, F)`, normalised.
            chunk_frames: feature frames whose output a chunk gives.
            context_frames: feature frames around them on either side.

        Returns:
            log_probs `(T', V)` float32 on the model's device.
        """
        num_frames, step = len(features), self.subsampling_factor
        if num_frames > chunk_frames:  # chunks and their contexts begin on output frames
            chunk_frames = max(1, chunk_frames // step) * step
        context_frames = -(-context_frames // step) * step
        firsts = range(0, max(num_frames, 1), chunk_frames)
        parts: list[Tensor] = []
        for number in range(0, len(firsts), CHUNKS_AT_ONCE):
            batch = firsts[number : number + CHUNKS_AT_ONCE]
            chunks = [
                features[max(0, first - context_frames) : first + chunk_frames + context_frames]
                for first in batch
            ]
            lengths = torch.tensor([len(chunk) for chunk in chunks], device=features.device)
            padded = nn.utils.rnn.pad_sequence(chunks, batch_first=True)
            log_probs, log_prob_lengths = self(padded, lengths)
            for first, row, length in zip(batch, log_probs, log_prob_lengths.tolist(), strict=True):
                before = min(first, context_frames) // step * self.upsampling
                after = -(-min(chunk_frames, num_frames - first) // step) * self.upsampling + before
                # A copy: a view would keep the output of the whole batch.
                parts.append(row[before : min(after, length)].clone())
        return torch.cat(parts)


class ConvSubsampling(nn.Module):
    """Convolutions over time and frequency with ReLU, each shortening time by its stride.

    Every convolution halves the frequency axis, so that the width stays small. Padding
    is zeroed before every convolution: at an utterance's end the kernel sees the same zeros alone
    and in any batch.

    Args:
        n_mels: mel bins F of the features.
        channels: channels of every convolution.
        factor: frames in for one frame out, 1, 2, 3, 4 or 8.

    Raises:
        ValueError: another factor.
    """

    def __init__(self, n_mels: int, channels: int, factor: int) -> None:
        super().__init__()
        if factor not in STRIDES:
            raise ValueError(
                f"subsampling {factor}, expected one of {', '.join(map(str, STRIDES))}"
            )
        self.n_mels = n_mels
        self.strides = STRIDES[factor]
        self.convolutions = nn.ModuleList()
        width = n_mels
        previous = 1
        for stride in self.strides:
            convolution = nn.Conv2d(previous, channels, 3, (stride, 2), padding=1)
            # torch's default leaves a sixth of the signal's power after each (He et al., 2015).
            if not convolution.weight.is_meta:  # there torch would import its compiler, for seconds
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
            # The kernels for channels-last are up to twice as fast, on CPUs and GPUs.
            convolution.weight.data = convolution.weight.data.to(memory_format=torch.channels_last)
            self.convolutions.append(convolution)
            previous = channels
            width = (width + 1) // 2
        self.output_size = channels * width

    @property
    def seen_behind(self) -> int:
        """Frames before `factor * t` that output frame t sees."""
        return sum(math.prod(self.strides[:k]) for k in range(len(self.strides)))

    @property
    def seen_ahead(self) -> int:
        """Frames that the last output frame of a block of `factor * n` sees beyond the block."""
        return max(self.seen_behind - math.prod(self.strides) + 1, 0)

    def output_length(self, lengths: Tensor) -> Tensor:
        """Frames left of `lengths` frames: int64, the same shape."""
        for stride in self.strides:
            lengths = subsampled_length(lengths, stride)
        return lengths

    def forward(
        self, features: Tensor, lengths: Tensor, missing: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Subsample.

        Args:
            features: `(B, T, F)`; padding may hold anything.
            lengths: `(B,)` int64 [frames].
            missing: `(B,)` int64, a multiple of `factor`, how many of the first frames lie before
                the recording's beginning, as padding does behind its end; None for none.

        Returns:
            `(B, ceil(T / factor), output_size)`, zero in the padding, and lengths `(B,)` int64.
        """
        x = mask_padding(features, lengths)
        if missing is not None:
            x = x * ~length_mask(missing, x.shape[1])[..., None]
        x = x[:, None]  # (B, 1, T, F)
        x = x.to(memory_format=torch.channels_last)
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            x = torch.relu(convolution(x))
            lengths = subsampled_length(lengths, stride)
            inside = length_mask(lengths, x.shape[2])
            if missing is not None:
                missing = missing // stride
                inside = inside & ~length_mask(missing, x.shape[2])
            x = x * inside[:, None, :, None]
        return x.transpose(1, 2).flatten(2), lengths  # (B, T', channels * F')


class MaskedNorm(nn.Module):
    """Normalisation of the frames of a padded batch in which padding never counts.

    Batch normalisation (Ioffe and Szegedy, 2015) over the valid frames, or layer normalisation of
    each (Ba, Kiros and Hinton, 2016), zero in the padding. One that does not learn
    (`requires_grad_(False)`) stays in evaluation mode: the running statistics hold still, and
    training sees what evaluation will.

    Args:
        kind: "batch", "layer", or "none" to leave the frames as they are.
        num_features: width of a frame.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, kind: str, num_features: int) -> None:
        super().__init__()
        norms = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        if kind not in norms:
            raise ValueError(f"norm {kind!r}, expected 'none', 'batch' or 'layer'")
        self.kind = kind
        self.norm = norms[kind](num_features)

    def train(self, mode: bool = True) -> Self:
        """Enter training mode, unless this does not learn, or evaluation mode."""
        return super().train(mode and all(p.requires_grad for p in self.parameters()))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Normalise `(B, T, F)` frames within `(B,)` lengths."""
        if self.kind == "none":
            return x
        if self.kind == "layer":
            return mask_padding(self.norm(x), lengths)
        inside = length_mask(lengths, x.shape[1])
        output = x.new_zeros(x.shape)
        # index_put on the valid frames only: their mean and variance are all that batch norm sees.
        output[inside] = self.norm(x[inside]).to(output.dtype)
        return output


class LookaheadConv(nn.Module):
    """Each unit's weighted sum of its present and next frames; at first the present one alone.

    Filters that begin at random would smear each frame over all that are seen.

    Args:
        width: units of a frame.
        lookahead: future frames seen.
    """

    def __init__(self, width: int, lookahead: int) -> None:
        super().__init__()
        self.lookahead = lookahead
        self.filter = nn.Conv1d(width, width, lookahead + 1, groups=width, bias=False)
        with torch.no_grad():
            self.filter.weight.zero_()[:, :, 0] = 1.0

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Filter `(B, T, width)` frames within `(B,)` lengths; beyond the end are zeros."""
        return self.filtered(nn.functional.pad(mask_padding(x, lengths), (0, 0, 0, self.lookahead)))

    def filtered(self, x: Tensor) -> Tensor:
        """Filter `(B, T + lookahead, width)` frames to `(B, T, width)`."""
        filtered: Tensor = self.filter(x.transpose(1, 2))  # channels first for the convolution
        return filtered.transpose(1, 2)
