"""The fast backends of the LSTM layer: `fused_cpu` by Numba and `fused_triton` by Triton.

Each has `run` for one layer in all its directions, see `lstm.Run`.
"""
