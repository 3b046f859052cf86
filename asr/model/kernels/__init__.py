"""Kernels of the LSTM, one module a device."""
