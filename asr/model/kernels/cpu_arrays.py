"""The arrays that the compiled time loops read and write.

One loop serves every cell: what a cell lacks is an empty array. N packed frames, D directions, B
utterances, H units, R the width of h (H, or the projection's), W the G * H sums of a frame, rounded
up to 16.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any  # in compiled code a NumPy array, outside of it the tensor that it is a view of


class Kind(NamedTuple):
    """Of the cell.

    Attributes:
        gates: G, 4, or 3 when i = 1 - f.
        reads_c: whether the recurrent matrix reads c instead of h.
        epsilon: added to the variance where the cell normalises.
    """

    gates: int
    reads_c: bool
    epsilon: float


class Parameters(NamedTuple):
    """Of the recurrence, for each direction.

    Attributes:
        panels_ih: the input's matrix in panels of `add_product`, `(D, W / 16, in, 16)`; on the way
            back its transpose, `(D, ceil(in / 16), G * H, 16)`.
        panels: the recurrent matrix, `(D, W / 16, R, 16)`; on the way back its transpose,
            `(D, ceil(R / 16), G * H, 16)`.
        panels_hr: the projection, `(D, ceil(R / 16), H, 16)`; back `(D, ceil(H / 16), R, 16)`.
        weight_ch: peepholes, `(D, G - 1, H)`.
        norm_ih: gain of the normalised input's share of the sums, `(D, G * H)`.
        norm_hh: likewise of the recurrent share.
        bias: of the sums, `(D, G * H)`.
        start: what the input's product is added to, `(D, 1, W)`: the bias, or zeros where the
            product is normalised first.
        norm_c: gain of the normalised cell state, `(D, H)`.
        bias_c: its bias, `(D, H)`.
    """

    panels_ih: Array
    panels: Array
    panels_hr: Array
    weight_ch: Array
    norm_ih: Array
    norm_hh: Array
    bias: Array
    start: Array
    norm_c: Array
    bias_c: Array


class Drawn(NamedTuple):
    """Of recurrent dropout and zoneout.

    Attributes:
        mask: factors on what the recurrent matrix reads, `(D, B, R)`.
        zone_h: share of the former h that stays, `(N, D, R)`.
        zone_c: likewise of c, `(N, D, H)`.
    """

    mask: Array
    zone_h: Array
    zone_c: Array


class Kept(NamedTuple):
    """What the backward pass reads; no rows where none follows.

    Attributes:
        inputs: x of each frame in panels, as the gradient of its matrix wants it,
            `(ceil(in / 16), N, 16)`.
        gates: values of the gates, `(N, D, W)`; before, the input's share of the sums, unless that
            is computed within the loop.
        recurrent: what the recurrent matrix read at each frame, likewise in panels,
            `(D, ceil(R / 16), N, 16)`.
        c: before each frame, `(N, D, H)`.
        unprojected: o * tanh(c), `(D, ceil(H / 16), N, 16)`, where there is a projection.
        normed_ih: the input's share before its gain, `(N, D, W)`, where the cell normalises.
        normed_hh: the recurrent share likewise.
        scales: 1 over the deviation that each had, `(N, D, 2)`.
    """

    inputs: Array
    gates: Array
    recurrent: Array
    c: Array
    unprojected: Array
    normed_ih: Array
    normed_hh: Array
    scales: Array


class Gradients(NamedTuple):
    """Of each frame's sums, and of the parameters by utterance, still to be added up.

    Attributes:
        input: of the input's share of the sums, `(N, D, W)`.
        recurrent: of the recurrent share, `(N, D, W)`; empty where it is the same.
        projected: of the projection's output, `(N, D, R)`.
        weight_ch: `(D, B, G - 1, H)`.
        norm_ih: `(D, B, G * H)`.
        norm_hh: `(D, B, G * H)`.
        bias: `(D, B, G * H)`.
        norm_c: `(D, B, H)`.
        bias_c: `(D, B, H)`.
    """

    input: Array
    recurrent: Array
    projected: Array
    weight_ch: Array
    norm_ih: Array
    norm_hh: Array
    bias: Array
    norm_c: Array
    bias_c: Array


class State(NamedTuple):
    """Between two frames; an utterance's rows are left alone before its first and after its last.

    Attributes:
        h: `(D, B, R)`.
        c: `(D, B, H)`.
        recurrent: `(D, B, R)`, what the recurrent matrix is to read next.
    """

    h: Array
    c: Array
    recurrent: Array
