"""Compared trainings: what differs, what is a repeat, order, state, CSV and picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from asr.report.runs import (
    ERROR_TEXT,
    VALIDATIONS,
    Run,
    ValidationRow,
    group_runs,
    groups_table,
    others_table,
    read_run,
    read_validations,
    runs_csv,
    short_names,
)
from asr.report.runs_picture import draw_runs
from asr.report.wording import Setting

BASE: Mapping[str, Setting] = {
    "seed": 0, "data.fold": 0, "model.hidden_size": 96, "optim": "AdamW", "optim.lr": 0.001,
    "optim.betas": "0.9, 0.98", "trainer.max_epochs": 2, "trainer.patience": 0,
}  # fmt: skip


def row(epoch: int, wer: float, cer: float = 0.5, loss: float = 1.0) -> ValidationRow:
    return ValidationRow(10 * epoch, epoch, 60.0 * epoch, 0.5 * epoch, loss, wer, cer)


def run(name: str, *wers: float, **settings: Setting) -> Run:
    """A run with a validation an epoch; settings are named with _ for the dot."""
    named = {key.replace("__", "."): value for key, value in settings.items()}
    rows = tuple(row(epoch, wer) for epoch, wer in enumerate(wers, start=1))
    return Run(name, {**BASE, **named}, rows)


def test_runs_that_differ_in_fold_and_seed_alone_are_one_group() -> None:
    """Mean 0.3 and deviation 0.1 of 0.2, 0.3 and 0.4, by hand."""
    runs = [run(f"r{n}", 0.9, wer, data__fold=n, seed=n) for n, wer in enumerate([0.4, 0.2, 0.3])]
    grouped = group_runs(runs)
    assert (grouped.columns, grouped.repeats) == ((), ("data.fold", "seed"))
    (group,) = grouped.groups
    assert [each.folder for each in group.runs] == ["r1", "r2", "r0"]
    assert group.wer.mean == pytest.approx(0.3)
    assert group.wer.deviation == pytest.approx(0.1)
    assert (group.wer.low, group.wer.high) == (0.2, 0.4)


def test_groups_are_sorted_by_mean_wer_then_cer() -> None:
    runs = [
        run("a", 0.9, 0.5, optim__lr=0.1),
        run("b", 0.9, 0.1, optim__lr=0.2),
        run("c", 0.9, 0.9, optim__lr=0.2, seed=1),
        run("d", 0.5, 0.2, optim__lr=0.3),
    ]
    lower_cer = replace(runs[0], folder="e", settings=runs[0].settings | {"optim.lr": 0.4},
                        validations=(row(2, 0.5, cer=0.4),))  # fmt: skip
    grouped = group_runs([*runs, lower_cer])
    assert grouped.columns == ("optim.lr",)
    assert [group.settings for group in grouped.groups] == [(0.3,), (0.4,), (0.1,), (0.2,)]
    assert math.isnan(grouped.groups[0].wer.deviation)


def test_values_that_python_calls_equal_are_different_settings() -> None:
    runs = [run("a", 1.0, 1.0, x=1), run("b", 1.0, 1.0, x=True), run("c", 1.0, 1.0, x=1.0)]
    assert len(group_runs(runs).groups) == 3


def test_what_comes_with_a_class_is_no_column_but_what_varies_within_it_is() -> None:
    sgd: dict[str, Setting] = {"optim": "SGD", "optim__betas": None, "optim__momentum": 0.9}
    runs = [run("a", 1, 1), run("b", 1, 1, **sgd), run("c", 1, 1, optim__lr=0.1, **sgd)]
    assert group_runs(runs).columns == ("optim", "optim.lr")


def test_columns_that_are_asked_for_group_what_they_do_not_tell_apart() -> None:
    runs = [run(f"{n}", 1.0, n / 10, optim__lr=n, model__hidden_size=n % 2) for n in range(4)]
    grouped = group_runs(runs, ["model.hidden_size"])
    assert [(group.settings, len(group.runs)) for group in grouped.groups] == [
        ((0,), 2), ((1,), 2)
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"'optim\.l': did you mean 'optim\.lr'\?"):
        group_runs(runs, ["optim.l"])


@pytest.mark.parametrize(
    ("made", "state"),
    [
        (run("a", 0.5, 0.4), "done"),
        (run("a", 0.5), "unfinished"),
        (run("a"), "unfinished"),
        (run("a", 0.5, 0.6, 0.6, trainer__max_epochs=9, trainer__patience=2), "done"),
        (run("a", 0.6, 0.5, 0.6, trainer__max_epochs=9, trainer__patience=2), "unfinished"),
        (replace(run("a", 0.5, 0.4), error="disk full"), "failed"),
    ],
)
def test_the_state_of_a_run(made: Run, state: str) -> None:
    assert made.state == state
    grouped = group_runs([made])
    assert len(grouped.groups) == (state == "done")
    assert grouped.others == (() if state == "done" else (made,))


def test_the_best_validation_is_the_first_of_lowest_wer_then_cer() -> None:
    rows = (row(1, 0.5, 0.1), row(2, 0.4, 0.3), row(3, 0.4, 0.2), row(4, 0.4, 0.2))
    assert Run("a", {}, rows).best == rows[2]


HEADER = "step,epoch,elapsed_s,audio_h,loss,wer,cer\n"


def test_a_run_is_read_off_its_folder(tmp_path: Path) -> None:
    assert read_run(tmp_path, {}) == Run(str(tmp_path), {})
    (tmp_path / VALIDATIONS).write_text(HEADER)
    assert read_run(tmp_path, {}).validations == ()
    # The third line is being written.
    (tmp_path / VALIDATIONS).write_text(f"{HEADER}10,1,60,0.5,1.0,0.9,0.5\n20,2,1")
    (tmp_path / ERROR_TEXT).write_text("no space left\n")
    found = read_run(tmp_path, {})
    assert found.validations == (row(1, 0.9),)
    assert found.error == "no space left"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}10,1,60,0.5,x,0.9,0.5\n", r"validations\.csv:2: no validation: could not"),
        ("step,epoch\n1,1\n", r"validations\.csv:2: no validation: 'elapsed_s'"),
        (HEADER, r"validations\.csv: no validation yet"),
    ],
)
def test_damaged_validations_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / VALIDATIONS).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_validations(tmp_path)


def test_short_names_are_as_long_as_they_must_be() -> None:
    keys = ["optim.lr", "model.dropout", "augment.dropout", "lr", "data.text.lower"]
    names = ["optim.lr", "model.dropout", "augment.dropout", "lr", "lower"]
    assert short_names(keys) == names


def printed(table: object) -> str:
    console = Console(width=200, file=io.StringIO(), highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_mean_deviation_range_and_count() -> None:
    runs = [run(f"x/r{n}", 0.9, w, seed=n) for n, w in enumerate([0.2, 0.3, 0.4])]
    single = run("x/single", 0.9, 0.05, optim__lr=0.12345678)
    text = printed(groups_table(group_runs([*runs, single])))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "lr n WER % sd range CER % loss step audio h min best run" in lines
    assert "0.1235 1 5.00 50.00 1 20 1.00 2.0 single" in lines
    assert "0.001 3 30.00 10.00 20.0-40.0 50.00 1 20 1.00 2.0 r0" in lines
    assert "sd" not in printed(groups_table(group_runs([single])))
    assert "1 line of higher WER left out" in printed(groups_table(group_runs([*runs, single]), 1))


def test_text_that_would_act_on_the_terminal_is_shown(tmp_path: Path) -> None:
    acting = "\x1b[2J\u202e"
    made = [
        run(f"a{acting}", 1.0, 1.0, data__train=f"b{acting}"),
        replace(run(f"c{acting}"), error=f"d{acting}", settings={**BASE, f"e{acting}": 1}),
    ]
    grouped = group_runs(made)
    text = printed(groups_table(grouped)) + printed(others_table(grouped))
    for shown in (text, runs_csv(grouped)):
        assert not set(acting[0] + acting[-1]) & set(shown)
        assert "␛[2J<U+202E>" in shown


def test_the_csv_has_every_run_once_with_its_group() -> None:
    runs = [
        run("best", 0.9, 0.1, optim__lr=0.1),
        run("again", 0.9, 0.3, optim__lr=0.1, seed=5),
        run("open", 0.75, optim__lr=None),
        replace(run("broken", optim__lr=0.3), error="no, not so"),
    ]
    rows = list(csv.DictReader(io.StringIO(runs_csv(group_runs(runs)))))
    assert [(r["group"], r["run"], r["state"], r["seed"], r["optim.lr"]) for r in rows] == [
        ("1", "best", "done", "0", "0.1"),
        ("1", "again", "done", "5", "0.1"),
        ("", "broken", "failed", "0", "0.3"),
        ("", "open", "unfinished", "0", "null"),
    ]
    assert [rows[0][key] for key in ("wer", "step", "epoch", "audio_h", "minutes")] == [
        "0.1", "20", "2", "1", "2"
    ]  # fmt: skip
    assert (rows[2]["wer"], rows[2]["error"], rows[3]["wer"]) == ("", "no, not so", "0.75")


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([run("one", 0.9, 0.5)], id="one run"),
        pytest.param([run("open", 0.9), run("none")], id="none done"),
        pytest.param([run(f"s{n}", 0.9, 0.1 * n, seed=n) for n in range(3)], id="repeats"),
        pytest.param(
            [
                run(f"g{n}", 0.9, 0.1 * n, optim__lr=10.0**-n, optim=("A$B", "日本")[n % 2])
                for n in range(6)
            ],
            id="a decade, and text that is no formula",
        ),
        pytest.param(
            [run("a", math.inf, math.inf), run("b", 0.9, 0.5, optim__lr=None)], id="infinite, null"
        ),
        pytest.param(
            [run(f"{n}", 1.0, 0.1 * n, **{f"k{k}": n for k in range(8)}) for n in range(30)],
            id="more settings than panels",
        ),
    ],
)
def test_the_picture_is_drawn_whatever_the_runs_are(runs: list[Run]) -> None:
    assert draw_runs(group_runs(runs)).startswith(b"\x89PNG")


def axes_of(comparison_runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The panels of the picture, caught where it is saved."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    draw_runs(group_runs(comparison_runs))
    return list(figures[0].axes)


def test_every_finished_run_is_a_dot_and_the_curves_have_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [
        run(f"{rate}{seed}", 0.9, 0.1 + rate * seed, optim__lr=rate, seed=seed)
        for rate in (0.001, 0.1)
        for seed in (0, 1, 2)
    ]
    rates, curves = axes_of([*runs, run("open", 0.8)], monkeypatch)
    assert rates.get_xscale() == "log"
    dots = [tuple(point) for dots in rates.collections for point in dots.get_offsets().tolist()]
    expected = [(rate, 100 * (0.1 + rate * seed)) for rate in (0.001, 0.1) for seed in (0, 1, 2)]
    assert sorted(dots) == [pytest.approx(each) for each in sorted(expected)]
    means = [line.get_ydata()[0] for line in rates.lines if line.get_marker() == "_"]
    assert sorted(means) == pytest.approx([10.1, 20.0])
    drawn = [line for line in curves.lines if len(line.get_xdata())]
    assert len(drawn) == 7
