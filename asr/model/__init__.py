"""The acoustic model: features to log-probabilities. Imports torch alone."""

from asr.model.bilstm_ctc import BiLstmCtc
from asr.model.lstm import LSTM

__all__ = ["LSTM", "BiLstmCtc"]
