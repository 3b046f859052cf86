"""A model that reads forwards: all steps together give what the whole gives, at any block size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from asr.model.bilstm_ctc import BiLstmCtc
from tests.model.test_bilstm_ctc import FACTORS, N_MELS, VOCAB, features_of, model_of


def live_model(**settings: object) -> BiLstmCtc:
    return model_of(bidirectional=False, **settings)


def stepped(model: BiLstmCtc, features: Tensor, block: int) -> Tensor:
    """Output of one recording `(T, F)` in steps of `block` LSTM frames."""
    num_new, extra, step = (
        block * model.subsampling_factor,
        model.live_extra,
        model.subsampling_factor,
    )
    state, parts, place = model.begin(), [], 0
    while len(features) - place >= num_new + extra:
        part = features[place : place + num_new + extra]
        log_probs, state = model.step(part[None], torch.tensor([len(part)]), state)
        parts.append(log_probs[0])
        place += num_new
    rest = features[place:]
    delay = model.live_delay // model.upsampling
    width = (-(-len(rest) // step) + delay) * step + extra
    if width > extra:
        padded = torch.full((width, N_MELS), torch.nan, dtype=features.dtype)
        padded[: len(rest)] = rest
        log_probs, _ = model.step(padded[None], torch.tensor([len(rest)]), state)
        parts.append(log_probs[0])
    whole = torch.cat(parts)[model.live_delay :]
    return whole[: int(model.output_length(torch.tensor(len(features))))]


@pytest.mark.parametrize("block", [1, 2, 5, 100])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("lookahead", [0, 3])
def test_steps_equal_the_whole(factor: int, lookahead: int, block: int) -> None:
    model = live_model(subsampling=factor, lookahead=lookahead)
    for frames in (1, 2, 7, 33, 64):
        features, lengths = features_of(frames)
        expected, _ = model(features, lengths)
        torch.testing.assert_close(stepped(model, features[0], block), expected[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"cell": "peephole"},
        {"cell": "projection", "proj_size": 3},
        {"cell": "layer_norm"},
        {"norm": "batch"},
        {"norm": "none"},
        {"upsampling": 2, "lookahead": 2},
    ],
    ids=str,
)
def test_steps_of_other_models(settings: dict[str, object]) -> None:
    model = live_model(subsampling=4, **settings)
    features, lengths = features_of(57)
    expected, _ = model(features, lengths)
    torch.testing.assert_close(stepped(model, features[0], 3), expected[0])


def test_streams_side_by_side_do_not_meet() -> None:
    model = live_model(subsampling=2, lookahead=2)
    features, _ = features_of(16, 16)
    count = torch.tensor([8 + model.live_extra] * 2)
    state, both = model.begin(2), []
    for place in (0, 8):
        log_probs, state = model.step(features[:, place : place + 8], count, state)
        both.append(log_probs)
    for row in range(2):
        state, alone = model.begin(), []
        for place in (0, 8):
            part = features[row : row + 1, place : place + 8]
            log_probs, state = model.step(part, count[:1], state)
            alone.append(log_probs)
        torch.testing.assert_close(torch.cat(both, dim=1)[row], torch.cat(alone, dim=1)[0])


def test_a_step_sees_no_later_frame() -> None:
    model = live_model(subsampling=4)
    features, _ = features_of(8 + model.live_extra)
    count = torch.tensor([features.shape[1]])
    first, _ = model.step(features, count, model.begin())
    assert first.shape == (1, 2, VOCAB)
    assert model.live_extra == 0
    assert model.live_delay == 0


def test_what_reads_backwards_has_no_steps() -> None:
    with pytest.raises(ValueError, match="a bidirectional model, expected one that reads forwards"):
        model_of().begin()
