"""The acoustic model: one function of each utterance alone, whatever lies around it.

Then long recordings in chunks, and its parts: the convolutions that subsample, and the norms.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from asr.model.bilstm_ctc import STRIDES, BiLstmCtc, ConvSubsampling, MaskedNorm
from asr.model.lstm import LSTM
from asr.model.lstm_cell import CELLS
from tests.model.layers import BACKENDS

N_MELS, VOCAB = 6, 5
NORMS = ("none", "batch", "layer")
FACTORS = (1, 2, 3, 4, 8)


def model_of(**arguments: object) -> BiLstmCtc:
    """A small model in float64 with weights large enough that every input matters."""
    torch.manual_seed(40)
    settings = {
        "subsampling": 2, "channels": 3, "hidden_size": 4, "num_layers": 2, "dropout": 0.0,
    } | arguments  # fmt: skip
    model = BiLstmCtc(N_MELS, VOCAB, **settings).double()  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval()


def features_of(*lengths: int, padding: float = float("nan")) -> tuple[Tensor, Tensor]:
    """A batch with junk beyond each length."""
    generator = torch.Generator().manual_seed(41)
    features = torch.randn(len(lengths), max(lengths), N_MELS, generator=generator).double()
    for row, length in enumerate(lengths):
        features[row, length:] = padding
    return features, torch.tensor(lengths)


@pytest.mark.parametrize("upsampling", [1, 2, 3])
@pytest.mark.parametrize("factor", FACTORS)
def test_output_length_of_every_input_length(factor: int, upsampling: int) -> None:
    model = model_of(subsampling=factor, upsampling=upsampling, num_layers=1, hidden_size=1)
    for frames in range(1, 65):
        features, lengths = features_of(frames)
        log_probs, log_prob_lengths = model(features, lengths)
        expected = upsampling * len(range(0, frames, factor))
        assert log_probs.shape == (1, expected, VOCAB)
        assert log_prob_lengths.tolist() == [expected]
        assert model.output_length(lengths).tolist() == [expected]
    assert model.frame_ratio == factor / upsampling


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"subsampling": 8, "upsampling": 2},
        {"subsampling": 3, "upsampling": 3},
        {"bidirectional": False, "lookahead": 2},
    ],
    ids=str,
)
def test_batch_equals_alone(norm: str, settings: dict[str, int]) -> None:
    model = model_of(norm=norm, **settings)
    features, lengths = features_of(19, 1, 8, 12)
    log_probs, log_prob_lengths = model(features, lengths)
    assert log_probs.dtype == torch.float32
    for row, length in enumerate(lengths.tolist()):
        alone, alone_length = model(features[row : row + 1, :length], torch.tensor([length]))
        assert log_prob_lengths[row] == alone_length
        torch.testing.assert_close(
            log_probs[row, : int(alone_length)], alone[0], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("norm", NORMS)
def test_padding_changes_neither_values_nor_gradients_in_training(norm: str) -> None:
    model = model_of(norm=norm).train()
    assert_finite_and_equal(
        *(_values_and_gradients(model, *features_of(11, 4, padding=p)) for p in (0.0, float("nan")))
    )


def _values_and_gradients(model: BiLstmCtc, features: Tensor, lengths: Tensor) -> list[Tensor]:
    model.zero_grad()
    log_probs, log_prob_lengths = model(features, lengths)
    valid = torch.cat(
        [row[:length] for row, length in zip(log_probs, log_prob_lengths.tolist(), strict=True)]
    )
    valid.square().sum().backward()
    return [valid.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def assert_finite_and_equal(left: list[Tensor], right: list[Tensor]) -> None:
    for one, other in zip(left, right, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("upsampling", [1, 2])
def test_each_frame_is_a_distribution(upsampling: int) -> None:
    log_probs, _ = model_of(upsampling=upsampling)(*features_of(9, 4))
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))
    assert log_probs.exp().std(dim=1).min() > 1e-3  # and not the same one everywhere


def test_upsampling_reads_neighbouring_frames_off_one_lstm_frame() -> None:
    model = model_of(upsampling=2, num_layers=1)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.arange(2.0 * VOCAB))
        model.head.bias[3] = 20.0
    log_probs, _ = model(*features_of(4))
    assert log_probs.argmax(-1).tolist() == [[3, VOCAB - 1, 3, VOCAB - 1]]


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_training_is_the_same_function_where_dropout_is_zero(norm: str) -> None:
    model = model_of(norm=norm)
    evaluated, _ = model(*features_of(9, 4))
    trained, _ = model.train()(*features_of(9, 4))
    assert torch.equal(trained, evaluated)


def test_dropout_acts_in_training_only_and_after_every_layer() -> None:
    model = model_of(dropout=0.5)
    features, lengths = features_of(9, 9)
    evaluated, _ = model(features, lengths)
    assert torch.equal(model(features, lengths)[0], evaluated)
    model.train()
    assert not torch.equal(model(features, lengths)[0], model(features, lengths)[0])
    model.dropout.p = 1.0
    # Nothing passes the last layer: the head's bias alone is left.
    expected = model.head.bias.log_softmax(-1).float().expand_as(evaluated)
    torch.testing.assert_close(model(features, lengths)[0], expected)


@pytest.mark.parametrize("lookahead", [0, 1, 3])
@pytest.mark.parametrize("factor", FACTORS)
def test_unidirectional_sees_no_further_than_its_lookahead(factor: int, lookahead: int) -> None:
    # Output frame m sits on features up to factor * (m + lookahead), and the convolutions, three
    # wide at every level, reach factor - 1 further (factor 1 and 3: one further).
    reach = {1: 1, 3: 1}.get(factor, factor - 1)
    model = model_of(subsampling=factor, bidirectional=False, lookahead=lookahead)
    features, lengths = features_of(64)
    before, _ = model(features, lengths)
    for changed in (20, 33):
        moved = features.clone()
        moved[0, changed] += 3.0
        after, _ = model(moved, lengths)
        differs = (after != before).any(-1)[0].nonzero().flatten()
        first = next(m for m in range(64) if factor * (m + lookahead) + reach >= changed)
        assert differs[0] == first


def test_bidirectional_sees_everything() -> None:
    model = model_of(num_layers=1)
    features, lengths = features_of(12)
    before, _ = model(features, lengths)
    features[0, -1] += 3.0
    assert (model(features, lengths)[0] != before).any(-1)[0, 0]


def test_lookahead_by_hand() -> None:
    model = model_of(bidirectional=False, lookahead=2, hidden_size=1, num_layers=1)
    assert model.lookahead is not None
    with torch.no_grad():
        model.lookahead.filter.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
    frames = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 7.0, 7.0]]).double()[..., None]
    filtered = model.lookahead(frames, torch.tensor([4, 2]))[..., 0]
    assert filtered[0].tolist() == [321.0, 432.0, 43.0, 4.0]
    assert filtered[1, :2].tolist() == [21.0, 2.0]


def test_clips_without_a_frame() -> None:
    model = model_of(upsampling=2)
    log_probs, lengths = model(torch.zeros(2, 0, N_MELS).double(), torch.tensor([0, 0]))
    assert lengths.tolist() == [0, 0]
    assert log_probs.shape[2] == VOCAB
    features, lengths = features_of(9, 0)
    beside, beside_lengths = model(features, lengths)
    assert beside_lengths.tolist() == [10, 0]
    torch.testing.assert_close(beside[:1], model(features[:1], lengths[:1])[0])


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_log_probs_in_float32_are_those_of_the_reference(cell: str, backend: str) -> None:
    if backend == "native" and cell not in ("lstm", "projection"):
        pytest.skip("torch's kernel has not this cell")
    settings = {"cell": cell, "proj_size": 2 if cell == "projection" else 0}
    exact = model_of(backend="reference", **settings)
    model = model_of(backend=backend, **settings).float()
    features, lengths = features_of(23, 9, 16)
    with torch.no_grad():
        expected, frames = exact(features, lengths)
        log_probs, _ = model(features.float(), lengths)
    assert log_probs.dtype == torch.float32
    for row, count in enumerate(frames):
        torch.testing.assert_close(log_probs[row, :count], expected[row, :count], rtol=0, atol=1e-5)


def test_layers_have_the_asked_shape() -> None:
    model = model_of(num_layers=3, bidirectional=False, backend="reference")
    layers = [layer for layer in model.modules() if isinstance(layer, LSTM)]
    assert [layer.input_size for layer in layers] == [9, 4, 4]  # 3 channels of 6 / 2 bins
    assert {layer.backend for layer in layers} == {"reference"}
    assert {layer.num_directions for layer in layers} == {1}
    assert model.head.out_features == VOCAB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lookahead": 2}, "lookahead 2 in a bidirectional model, expected 0"),
        ({"lookahead": -1, "bidirectional": False}, "lookahead -1, expected 0 or more"),
        ({"upsampling": 0}, "upsampling 0, expected 1 or more"),
        ({"num_layers": 0}, "num_layers 0, expected 1 or more"),
        ({"channels": 0}, "channels 0, expected 1 or more"),
        ({"hidden_size": 0}, "hidden_size 0, expected 1 or more"),
        ({"subsampling": 5}, "subsampling 5, expected one of 1, 2, 3, 4, 8"),
        ({"norm": "group"}, "norm 'group', expected 'none', 'batch' or 'layer'"),
        ({"backend": "fast"}, "backend 'fast', expected one of auto"),
        ({"dropout": 1.5}, "dropout 1.5, expected 0 to 1"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of(**arguments)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("lookahead", [0, 2])
def test_every_parameter_is_in_one_block(norm: str, lookahead: int) -> None:
    model = model_of(norm=norm, bidirectional=not lookahead, lookahead=lookahead, num_layers=3)
    assert len(model.blocks) == 5
    names = {
        name: number
        for number, block in enumerate(model.blocks)
        for name, parameter in model.named_parameters()
        if any(parameter is own for module in block for own in module.parameters())
    }
    assert names.keys() == dict(model.named_parameters()).keys()
    assert {name: number for name, number in names.items() if name.startswith("layers.")} == {
        name: 1 + int(name.split(".")[1]) for name in names if name.startswith("layers.")
    }
    assert {names[name] for name in names if name.startswith(("subsampling", "input_norm"))} == {0}
    assert {names[name] for name in names if name.startswith(("lookahead", "head"))} == {4}
    if norm != "none":
        assert [names[f"norms.{index}.norm.weight"] for index in range(3)] == [1, 2, 3]


def forgetful_model_of(**arguments: object) -> BiLstmCtc:
    """A model that forgets in some frames: torch's own weights are small."""
    torch.manual_seed(1)
    settings = {"channels": 3, "hidden_size": 8, "num_layers": 1, "dropout": 0.0} | arguments
    return BiLstmCtc(N_MELS, VOCAB, **settings).double().eval()  # type: ignore[arg-type]


def whole(model: BiLstmCtc, features: Tensor) -> Tensor:
    log_probs, lengths = model(features[None], torch.tensor([len(features)]))
    return log_probs[0, : int(lengths)]


@pytest.mark.parametrize(("subsampling", "upsampling"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 2)])
@pytest.mark.parametrize("num_frames", [401, 400, 399, 57])
def test_chunks_are_as_the_whole(subsampling: int, upsampling: int, num_frames: int) -> None:
    model = forgetful_model_of(subsampling=subsampling, upsampling=upsampling)
    features = torch.randn(num_frames, N_MELS, generator=torch.Generator().manual_seed(2)).double()
    with torch.inference_mode():
        expected = whole(model, features)
        found = model.log_probs_in_chunks(features, 50, 200)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4  # nothing is shifted, dropped or told twice


def test_without_a_context_the_ends_of_chunks_differ() -> None:
    model = forgetful_model_of(subsampling=2)
    features = torch.randn(400, N_MELS, generator=torch.Generator().manual_seed(2)).double()
    with torch.inference_mode():
        difference = (model.log_probs_in_chunks(features, 100, 0) - whole(model, features)).abs()
    assert difference[50].max() > 1e-3
    assert difference[25].max() < 1e-4


def test_what_fits_a_chunk_is_the_whole_to_the_bit() -> None:
    model = forgetful_model_of()
    nn.init.normal_(model.head.weight)
    features = torch.randn(100, N_MELS, generator=torch.Generator().manual_seed(3)).double()
    with torch.inference_mode():
        assert torch.equal(model.log_probs_in_chunks(features, 100, 10), whole(model, features))


SUBSAMPLED_MELS = 5


def subsampling_of(
    factor: int, n_mels: int = SUBSAMPLED_MELS, channels: int = 3
) -> ConvSubsampling:
    torch.manual_seed(factor)
    return ConvSubsampling(n_mels, channels, factor).double()


def test_every_factor_is_tested_and_is_the_product_of_its_strides() -> None:
    assert tuple(STRIDES) == FACTORS
    for factor, strides in STRIDES.items():
        assert torch.tensor(strides).prod() == factor


@pytest.mark.parametrize("factor", FACTORS)
def test_subsampled_length_of_every_input_length(factor: int) -> None:
    layer = subsampling_of(factor)
    for frames in range(1, 65):
        output, lengths = layer(
            torch.zeros(1, frames, SUBSAMPLED_MELS).double(), torch.tensor([frames])
        )
        expected = len(range(0, frames, factor))  # every factor-th frame from the first
        assert lengths.tolist() == [expected]
        assert output.shape == (1, expected, layer.output_size)
        assert layer.output_length(torch.tensor(frames)) == expected


@pytest.mark.parametrize(("n_mels", "factor", "width"), [(80, 4, 60), (40, 8, 15), (21, 2, 33)])
def test_output_size_by_hand(n_mels: int, factor: int, width: int) -> None:
    # Three channels of the mel bins halved, rounded up, once for each convolution.
    layer = subsampling_of(factor, n_mels)
    assert layer.output_size == width
    assert layer(torch.zeros(1, 9, n_mels).double(), torch.tensor([9]))[0].shape[-1] == width


def test_subsampled_values_by_hand() -> None:
    # One mel bin and one channel: y_t = relu(a x_{2t-1} + b x_{2t} + c x_{2t+1} + d).
    layer = ConvSubsampling(1, 1, 2)
    kernel = torch.zeros(3, 3)
    kernel[:, 1] = torch.tensor([1.0, 10.0, 100.0])
    convolution = layer.convolutions[0]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    with torch.no_grad():
        convolution.weight.copy_(kernel[None, None])
        convolution.bias.fill_(-25.0)
    features = torch.tensor([[1.0, 2.0, 3.0, 0.0, 2.0], [1.0, 2.0, 3.0, 7.0, 7.0]])[..., None]
    output, lengths = layer(features, torch.tensor([5, 3]))
    # Row 0: 10 + 200, 2 + 30 + 0, 0 + 20 less than 25. Row 1 ends after 3: 10 + 200, 2 + 30.
    assert output[..., 0].tolist() == [[185.0, 7.0, 0.0], [185.0, 7.0, 0.0]]
    assert lengths.tolist() == [3, 2]


@pytest.mark.parametrize("factor", FACTORS)
def test_a_subsampled_batch_equals_alone_and_padding_may_be_nan(factor: int) -> None:
    layer = subsampling_of(factor)
    features = torch.randn(4, 17, SUBSAMPLED_MELS).double()
    lengths = torch.tensor([17, 1, 9, 8])
    for row, length in enumerate(lengths.tolist()):
        features[row, length:] = float("nan")
    output, output_lengths = layer(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, alone_length = layer(features[row : row + 1, :length], torch.tensor([length]))
        assert output_lengths[row] == alone_length
        kept = int(alone_length)
        torch.testing.assert_close(output[row, :kept], alone[0], rtol=1e-12, atol=1e-12)
        assert torch.count_nonzero(output[row, kept:]) == 0


@pytest.mark.parametrize("factor", FACTORS)
def test_nan_in_the_padding_stays_out_of_the_convolutions_gradients(factor: int) -> None:
    layer = subsampling_of(factor)
    features = torch.randn(2, 9, SUBSAMPLED_MELS).double()
    lengths = torch.tensor([9, 5])

    def gradients(padding: float) -> list[Tensor]:
        padded = features.clone()
        padded[1, 5:] = padding
        layer.zero_grad()
        layer(padded, lengths)[0].square().sum().backward()
        return [p.grad.clone() for p in layer.parameters() if p.grad is not None]

    for found, expected in zip(gradients(float("nan")), gradients(0.0), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("factor", [0, 5, 6, -2])
def test_other_factors_are_refused(factor: int) -> None:
    with pytest.raises(ValueError, match=f"subsampling {factor}, expected one of 1, 2, 3, 4, 8"):
        ConvSubsampling(SUBSAMPLED_MELS, 3, factor)


WIDTH = 3
LENGTHS = torch.tensor([5, 1, 3])


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(30)
    return 2 + 3 * torch.randn(3, 5, WIDTH).double()


def valid_frames(x: Tensor) -> Tensor:
    return torch.cat([x[row, :length] for row, length in enumerate(LENGTHS.tolist())])


def randomise(*norms: nn.Module) -> None:
    """The same random gains and shifts for all: 1 and 0 would hide a missing one."""
    for norm in norms:
        torch.manual_seed(31)
        for parameter in norm.parameters():
            nn.init.normal_(parameter)


def test_batch_norm_is_torchs_on_the_valid_frames(x: Tensor) -> None:
    ours, theirs = MaskedNorm("batch", WIDTH).double(), nn.BatchNorm1d(WIDTH).double()
    randomise(ours, theirs)
    for scale in (1.0, 4.0):  # twice, so that the running statistics move twice
        expected = theirs(valid_frames(scale * x))
        output = ours(scale * x, LENGTHS)
        torch.testing.assert_close(valid_frames(output), expected, rtol=1e-12, atol=1e-12)
        assert torch.count_nonzero(output[1, 1:]) == 0
    for name, statistic in theirs.named_buffers():
        torch.testing.assert_close(ours.norm.get_buffer(name), statistic, rtol=1e-12, atol=1e-12)
    assert not torch.equal(ours.norm.get_buffer("running_mean"), torch.zeros(WIDTH).double())


def test_batch_norm_evaluates_with_its_running_statistics(x: Tensor) -> None:
    norm = MaskedNorm("batch", WIDTH).double()
    for _ in range(3):
        norm(x, LENGTHS)
    norm.eval()
    statistics = {name: value.clone() for name, value in norm.state_dict().items()}
    output = norm(x, LENGTHS)
    alone = norm(x[2:, :3], torch.tensor([3]))
    assert torch.equal(output[2, :3], alone[0])
    assert all(torch.equal(value, statistics[name]) for name, value in norm.state_dict().items())


def test_gradients_of_batch_norm(x: Tensor) -> None:
    ours, theirs = MaskedNorm("batch", WIDTH).double(), nn.BatchNorm1d(WIDTH).double()
    randomise(ours, theirs)
    weights = torch.randn(x.shape).double()
    left, right = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ours(left, LENGTHS) * weights).sum().backward()
    (theirs(valid_frames(right)) * valid_frames(weights)).sum().backward()
    torch.testing.assert_close(left.grad, right.grad, rtol=1e-12, atol=1e-12)
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-12)


def test_layer_norm_is_torchs_on_each_frame(x: Tensor) -> None:
    ours, theirs = MaskedNorm("layer", WIDTH).double(), nn.LayerNorm(WIDTH).double()
    randomise(ours, theirs)
    output = ours(x, LENGTHS)
    torch.testing.assert_close(valid_frames(output), theirs(valid_frames(x)))
    assert torch.count_nonzero(output[1, 1:]) == 0
    assert torch.count_nonzero(output[2, 3:]) == 0


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_padding_of_a_norm_may_be_nan(kind: str, x: Tensor) -> None:
    norm = MaskedNorm(kind, WIDTH).double()
    randomise(norm)
    expected = norm(x, LENGTHS)
    x[1, 1:] = float("nan")
    assert torch.equal(norm(x, LENGTHS), expected)


def test_no_norm_changes_nothing(x: Tensor) -> None:
    norm = MaskedNorm("none", WIDTH)
    assert norm(x, LENGTHS) is x
    assert not list(norm.parameters())


def test_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="norm 'instance', expected 'none', 'batch' or 'layer'"):
        MaskedNorm("instance", WIDTH)


def test_batch_norm_that_does_not_learn_stays_in_evaluation_mode(x: Tensor) -> None:
    norm = MaskedNorm("batch", WIDTH).double()
    randomise(norm)
    norm(x, LENGTHS)
    statistics = {name: value.clone() for name, value in norm.named_buffers()}
    expected = norm.eval()(x, LENGTHS)
    norm.requires_grad_(False)
    parent = nn.ModuleList([norm]).train()  # as the model's own train() reaches it
    assert parent.training
    assert torch.equal(norm(x, LENGTHS), expected)
    assert all(torch.equal(value, statistics[name]) for name, value in norm.named_buffers())
    norm.requires_grad_(True)
    parent.train()
    assert not torch.equal(norm(x, LENGTHS), expected)
