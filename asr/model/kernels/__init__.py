"""Backends of the LSTM layer, one module each.

Each has

    run(x, lengths, cell, weights, noise, h_0, c_0) -> output, h_n, c_n

for one layer in all its directions (`directions.Run`); `refusal(cell, weights, noisy)`, why it
cannot serve such a layer, or None; and `ADVANTAGE`, why one would take it.
"""
