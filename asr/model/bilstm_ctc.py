"""The acoustic model: features to log-probabilities of characters and the CTC blank."""

from __future__ import annotations

from torch import Tensor, nn

from asr.model.dropout import Dropout
from asr.model.lengths import mask_padding
from asr.model.lstm import LSTM
from asr.model.normalization import make_norm
from asr.model.subsampling import ConvSubsampling


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
        self.input_norm = make_norm(norm, width)
        for _ in range(num_layers):
            layer = LSTM(
                width, hidden_size, batch_first=True, bidirectional=bidirectional,
                proj_size=proj_size, cell=cell, backend=backend,
                recurrent_dropout=recurrent_dropout, zoneout=zoneout, coupled_gates=coupled_gates,
                forget_bias=forget_bias,
            )  # fmt: skip
            width = layer.output_size
            self.layers.append(layer)
            self.norms.append(make_norm(norm, width))
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
        logits = self.head(x)  # (B, T'', upsampling * V)
        logits = logits.unflatten(-1, (self.upsampling, self.vocab_size)).flatten(1, 2)
        return logits.float().log_softmax(dim=-1), lengths * self.upsampling


class LookaheadConv(nn.Module):
    """Each unit's weighted sum of its present and next frames.

    Args:
        width: units of a frame.
        lookahead: future frames seen.
    """

    def __init__(self, width: int, lookahead: int) -> None:
        super().__init__()
        self.lookahead = lookahead
        self.filter = nn.Conv1d(width, width, lookahead + 1, groups=width, bias=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Filter `(B, T, width)` frames within `(B,)` lengths; beyond the end are zeros."""
        ahead = nn.functional.pad(mask_padding(x, lengths), (0, 0, 0, self.lookahead))
        filtered: Tensor = self.filter(ahead.transpose(1, 2))  # channels first for the convolution
        return filtered.transpose(1, 2)
