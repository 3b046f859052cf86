"""Long recordings in chunks: as the whole, up to what lies beyond the context."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from asr.model.bilstm_ctc import BiLstmCtc
from asr.recognizer import log_probs_in_chunks

N_MELS, VOCAB = 6, 5


def model_of(**arguments: object) -> BiLstmCtc:
    """A model that forgets in some frames: torch's own weights are small."""
    torch.manual_seed(1)
    settings = {"channels": 3, "hidden_size": 8, "num_layers": 1, "dropout": 0.0} | arguments
    return BiLstmCtc(N_MELS, VOCAB, **settings).double().eval()  # type: ignore[arg-type]


def whole(model: BiLstmCtc, features: torch.Tensor) -> torch.Tensor:
    log_probs, lengths = model(features[None], torch.tensor([len(features)]))
    return log_probs[0, : int(lengths)]


@pytest.mark.parametrize(("subsampling", "upsampling"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 2)])
@pytest.mark.parametrize("num_frames", [401, 400, 399, 57])
def test_chunks_are_as_the_whole(subsampling: int, upsampling: int, num_frames: int) -> None:
    model = model_of(subsampling=subsampling, upsampling=upsampling)
    features = torch.randn(num_frames, N_MELS, generator=torch.Generator().manual_seed(2)).double()
    with torch.inference_mode():
        expected = whole(model, features)
        found = log_probs_in_chunks(model, features, 50, 200)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4  # nothing is shifted, dropped or told twice


def test_without_a_context_the_ends_of_chunks_differ() -> None:
    model = model_of(subsampling=2)
    features = torch.randn(400, N_MELS, generator=torch.Generator().manual_seed(2)).double()
    with torch.inference_mode():
        difference = (log_probs_in_chunks(model, features, 100, 0) - whole(model, features)).abs()
    assert difference[50].max() > 1e-3
    assert difference[25].max() < 1e-4


def test_what_fits_a_chunk_is_the_whole_to_the_bit() -> None:
    model = model_of()
    nn.init.normal_(model.head.weight)
    features = torch.randn(100, N_MELS, generator=torch.Generator().manual_seed(3)).double()
    with torch.inference_mode():
        assert torch.equal(log_probs_in_chunks(model, features, 100, 10), whole(model, features))


def test_progress_ends_with_all_frames() -> None:
    told: list[tuple[int, int]] = []
    with torch.inference_mode():
        log_probs_in_chunks(
            model_of(), torch.zeros(1000, N_MELS).double(), 100, 20,
            lambda done, total: told.append((done, total)),
        )  # fmt: skip
    assert told == [(400, 1000), (800, 1000), (1000, 1000)]
