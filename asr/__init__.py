"""Train, own and understand a speech recogniser: stacked bidirectional LSTMs with CTC."""

__version__ = "0.1.0"
