"""The distributions of an examination as a picture."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.atomic_file import replace_bytes
from asr.data.doctor.examine import Examination
from asr.data.doctor.quantity import Quantity, edges, quantities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 40
# Blue, orange, green, purple: told apart by the colour-blind too (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
BAD = "#c0392b"
MARGIN = 1.08  # of an axis around the values


def draw_examination(
    examination: Examination, path: Path, min_duration_s: float, max_duration_s: float
) -> None:
    """Draw the histograms of durations, characters a second, levels and CTC's slack.

    Every manifest is a line of its own colour, in per cent of its utterances; what a training
    cannot use is on red ground.

    Args:
        examination: what was found.
        path: of the picture, a PNG.
        min_duration_s: of a training [s].
        max_duration_s: of a training [s].

    Raises:
        OSError: from writing.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    grid: Any = figure.subplots(2, 2)
    for axes, quantity in zip(grid.flat, quantities(min_duration_s, max_duration_s), strict=True):
        _draw(axes, quantity, examination)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=3, frameon=False, fontsize=11
        )
    picture = io.BytesIO()
    with warnings.catch_warnings():
        # A text or a name may hold letters that the font lacks: boxes stand for them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(picture, dpi=120, format="png")
    replace_bytes(path, picture.getbuffer())


def _draw(axes: Axes, quantity: Quantity, examination: Examination) -> None:
    values = [quantity.values(manifest) for manifest in examination.manifests]
    together = [value for each in values for value in each]
    axes.set_title(quantity.label, loc="left", fontsize=11, fontweight="bold")
    axes.set_title(quantity.note, loc="right", fontsize=9, color="0.45")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(which="both", length=0, colors="0.35")
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    if not together:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes, color="0.5")
        axes.set(xticks=[], yticks=[])
        return
    bounds = edges(min(together), max(together), BINS, quantity.is_log)
    for number, (manifest, own) in enumerate(zip(examination.manifests, values, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        axes.hist(
            own, bins=bounds, weights=[100 / len(own)] * len(own) if own else None,
            histtype="stepfilled", facecolor=(colour, 0.05 if number else 0.3), edgecolor=colour,
            linewidth=1.6, label=f"{_short(manifest.manifest)}, {len(own):,} utterances",
        )  # fmt: skip
    _scale(axes, quantity, min(together), max(together))
    axes.yaxis.set_major_formatter(lambda share, position: f"{share:g} %")


def _scale(axes: Axes, quantity: Quantity, low: float, high: float) -> None:
    """The axis around the values, and red ground beyond the bounds that lie near them."""
    if quantity.is_log:
        axes.set_xscale("log")
        _label_round_numbers(axes)
        if quantity.low is not None and quantity.low < low < 2 * quantity.low:
            low = quantity.low / MARGIN  # how near is it?
        low, high = low / MARGIN, high * MARGIN
    else:
        margin = (high - low) * (MARGIN - 1) + 1e-3
        low, high = low - margin, high + margin
    axes.set_xlim(low, high)
    if quantity.low is not None and quantity.low > low:
        axes.axvspan(low, quantity.low, color=BAD, alpha=0.12, linewidth=0)
    if quantity.high is not None and quantity.high < high:
        axes.axvspan(quantity.high, high, color=BAD, alpha=0.12, linewidth=0)


def _label_round_numbers(axes: Axes) -> None:
    """1, 1.5, 2, 3, 5, 7 and their tenfolds, as far as they are on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _short(manifest: Path) -> str:
    """Its folder and name, as much as fits a legend; `$` would begin a formula."""
    return f"{manifest.absolute().parent.name}/{manifest.name}".replace("$", r"\$")
