"""asr bench: a recipe's own commands, run one after the other, and its figures compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from asr.cli import bench
from asr.cli.bench import judge
from asr.cli.main import main
from asr.cli.published import DATA, Figure, check_words, read_published, recipe_names, recipes_dir
from asr.metrics.error_rate import score_utterance
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.evaluation_file import read_evaluation
from tests.test_docs import commands

Fails = Callable[..., str]
NUM_WORDS = 15  # of the tone corpus


def write_recipe(folder: Path, tiny: Sequence[str], **changes: Any) -> Path:
    """A recipe of the tone corpus, whose training is one epoch long."""
    settings = {
        "about": "letters as tones",
        "commands": [
            ["prepare", "corpus=manifest", "corpus.name=tones", f"corpus.source={DATA}",
             "corpus.sample_rate=8000"],
            ["train", *tiny, "data.train=data/tones/train.jsonl", "name=tones",
             "data.dev=data/tones/train.jsonl", "trainer.max_epochs=1"],
            ["evaluate", "model_file=runs/train/tones/best.safetensors", "device=cpu",
             "manifest=data/tones/train.jsonl", "name=test", "report.listen=0"],
        ],
        "figures": [{"test": "t", "evaluation": "test", "wer_percent": 0.0, "words": NUM_WORDS}],
        "date": "2026-11-30", "machine": "a machine", "training_minutes": 0.5,
        "data": "needed", "data_folder": "the folder of tones",
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "bench.yaml").write_text(yaml.safe_dump(settings | changes))
    return folder


@pytest.fixture(scope="module")
def benched(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, tiny: tuple[str, ...]
) -> tuple[Path, Path, int]:
    """The tone recipe, the folder of its bench, and how that ended."""
    folder = tmp_path_factory.mktemp("bench")
    recipe, out = write_recipe(folder / "tones", tiny), folder / "out"
    status = main(["bench", str(recipe), "--data", str(corpus.parent), "--output", str(out)])
    return recipe, out, status


def state_of(out: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((out / "bench.json").read_text())
    return state


def test_a_recipe_is_prepared_trained_and_evaluated(
    benched: tuple[Path, Path, int], corpus: Path, fails: Fails
) -> None:
    recipe, out, status = benched
    evaluation = read_evaluation(out / "runs/evaluate/test/evaluation.json")
    state = state_of(out)
    (result,) = state["results"]
    assert status == 1  # an epoch is too little for 0 %
    assert result["verdict"] == "worse"
    assert result["wer_percent"] == pytest.approx(100 * evaluation.words.rate, abs=1e-3)
    interval = evaluation.intervals.words
    assert interval is not None
    ends = [100 * interval.low, 100 * interval.high]
    assert result["interval_percent"] == pytest.approx(ends, abs=1e-3)
    assert len(state["seconds"]) == 3
    assert state["commands"][0][3] == f"corpus.source={corpus.parent}"
    line = fails("bench", str(recipe), "--output", str(out))
    assert line.startswith(f"{out} holds a finished bench, expected --overwrite")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> tuple[list[list[str]], list[int]]:
    """What is run in place of commands, and the statuses with which they end."""
    calls: list[list[str]] = []
    statuses: list[int] = []

    def run(words: Sequence[str], folder: Path) -> int:
        calls.append(list(words))
        return statuses.pop(0)

    monkeypatch.setattr(bench, "_run", run)
    return calls, statuses


def test_what_was_stopped_goes_on(
    benched: tuple[Path, Path, int],
    corpus: Path,
    tmp_path: Path,
    ran: tuple[list[list[str]], list[int]],
    fails: Fails,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls, statuses = ran
    recipe, out = benched[0], tmp_path / "out"
    arguments = ["bench", str(recipe), "--output", str(out)]
    statuses[:] = [0, 75]
    assert main([*arguments, "--data", str(corpus.parent)]) == 75
    assert "the same command goes on from here" in capsys.readouterr().err
    assert [words[0] for words in calls] == ["prepare", "train"]
    other = fails(*arguments, "--", "optim.lr=0.5")
    assert other.startswith(f"{out} holds a bench of other commands, expected the same ones")
    calls.clear()
    statuses[:] = [0, 0]
    shutil.copytree(benched[1] / "runs", out / "runs")
    assert main(arguments) == 1  # without --data, which it knows
    assert [words[0] for words in calls] == ["train", "evaluate"]
    assert calls[0] == [*state_of(out)["commands"][1], "resume=auto"]
    calls.clear()
    statuses[:] = [2]
    assert main([*arguments, "--data", str(corpus.parent), "--overwrite"]) == 2
    assert "asr prepare ended with status 2" in capsys.readouterr().err
    assert calls[0][0] == "prepare"
    assert not (out / "runs").exists()


def test_other_settings_are_not_comparable(
    benched: tuple[Path, Path, int],
    corpus: Path,
    tmp_path: Path,
    ran: tuple[list[list[str]], list[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls, statuses = ran
    statuses[:] = [0, 0, 0]
    out = tmp_path / "out"
    # The evaluation is there before it is made, as nothing is run.
    words = ["bench", str(benched[0]), "--data", str(corpus.parent), "--output", str(out)]
    state_before = bench._run_all

    def run_all(*arguments: Any) -> int:
        shutil.copytree(benched[1] / "runs", out / "runs")
        return state_before(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "_run_all", run_all)
        assert main([*words, "--", "trainer.max_epochs=2"]) == 0
    assert [call[-1] for call in calls].index("trainer.max_epochs=2") == 1
    assert "trainer.max_epochs=2" not in calls[0] + calls[2]
    assert "not comparable: trainer.max_epochs=2" in capsys.readouterr().out


def evaluation_of(errors: int, words: int) -> Evaluation:
    """Of so many utterances of a word each, of which some are wrong."""
    utterances = tuple(
        EvaluatedUtterance(
            str(n), None, 1.0, "a.wav", score_utterance(str(n), "a", "b" if n < errors else "a")
        )
        for n in range(words)
    )
    return Evaluation("t", ModelDescription("m", 1), "f", None, utterances)


@pytest.mark.parametrize(
    ("published", "words", "expected"),
    [
        (20.0, 100, "agrees"),  # 20 of 100 have an interval of about 12 to 28 %
        (27.0, 100, "agrees"),
        (40.0, 100, "better"),
        (5.0, 100, "worse"),
        (20.0, 120, "not comparable: 100 words, published of 120"),
    ],
)
def test_a_figure_agrees_within_the_interval(published: float, words: int, expected: str) -> None:
    result = judge(Figure("t", "e", published, words), evaluation_of(20, 100))
    assert result.verdict == expected
    assert result.wer_percent == 20.0
    assert result.interval_percent[0] < 20.0 < result.interval_percent[1]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"commands": [["serve"]]}, "a command is 'serve', expected one of prepare, train, evalua"),
        ({"commands": [["prepare"]]}, "commands have no train"),
        ({"figures": []}, "no figures"),
        ({"data": "none"}, "data is none, expected none where no word has {data}"),
        ({"training_minutes": "long"}, "training_minutes is 'long'"),
    ],
)
def test_a_recipe_that_publishes_nonsense(
    changes: dict[str, Any], expected: str, tmp_path: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    recipe = write_recipe(tmp_path / "r", tiny, **changes)
    assert expected in fails("bench", str(recipe), "--output", str(tmp_path / "out"))


def test_a_strangers_recipe_runs_nothing_but_plain_settings(
    tmp_path: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    for word, expected in (
        ("hydra.run.dir=/tmp/x", "expected no setting of Hydra's"),
        ("name=${oc.env:HOME}", "expected a value, not a look-up"),
        ("--config-dir=/tmp", "expected KEY=VALUE"),
        ("+model._target_=os.system", "expected"),
    ):
        bad = [["train", word], ["evaluate", f"model_file={DATA}", "name=test"]]
        recipe = write_recipe(tmp_path / "r", tiny, commands=bad)
        line = fails(
            "bench", str(recipe), "--data", str(tmp_path), "--output", str(tmp_path / "out")
        )
        assert expected in line, word


def test_a_strangers_recipe_reads_and_writes_in_its_folders(
    tmp_path: Path, tiny: tuple[str, ...], fails: Fails
) -> None:
    train = ["train", *tiny, f"data.train={DATA}/train.jsonl", "data.dev=x", "name=t"]
    last = ["evaluate", "model_file=x", "manifest=x", "name=test"]
    for command in (
        ["lexicon", f"{DATA}/train.jsonl", "--voice", "fr", "--output", "/tmp/x"],
        ["lexicon", f"{DATA}/train.jsonl", "--voice", "fr", "--output=../x"],
        ["lm", "train", f"{DATA}/../secret", "--output", "x.ngram"],
    ):
        recipe = write_recipe(tmp_path / "r", tiny, commands=[command, train, last])
        line = fails(
            "bench", str(recipe), "--data", str(tmp_path), "--output", str(tmp_path / "out")
        )
        assert "expected a file in the folder of the bench or {data}" in line, command


def test_lexicon_and_language_model_of_a_recipe_are_made(
    tmp_path: Path,
    tiny: tuple[str, ...],
    ran: tuple[list[list[str]], list[int]],
    fails: Fails,
) -> None:
    calls, statuses = ran
    statuses[:] = [0, 0, 75]
    train = ["train", *tiny, f"data.train={DATA}/train.jsonl", "data.dev=x", "name=t"]
    last = ["evaluate", "model_file=x", "manifest=x", "name=test"]
    making = [
        ["lexicon", f"{DATA}/words.txt", "--voice", "fr", "--output", "x.lexicon"],
        ["lm", "train", f"{DATA}/words.txt", "--output", "x.ngram"],
    ]
    recipe = write_recipe(tmp_path / "r", tiny, commands=[*making, train, last])
    arguments = ["bench", str(recipe), "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(arguments) == 75
    assert calls[:2] == [[each.replace(DATA, str(tmp_path)) for each in words] for words in making]
    making[1].append("--ordre")
    recipe = write_recipe(tmp_path / "r", tiny, commands=[*making, train, last])
    arguments[-1] += "2"
    assert fails(*arguments).startswith("unknown option --ordre: did you mean --order")


def test_mistakes_are_one_line(
    benched: tuple[Path, Path, int],
    tmp_path: Path,
    fails: Fails,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, out = str(benched[0]), str(tmp_path / "out")
    assert (
        fails("bench", recipe, "--output", out) == "--data is missing, expected the folder of tones"
    )
    assert fails("bench", "no").startswith("no: no recipe with a bench.yaml, expected one of com")
    assert fails("bench").startswith("no recipe, expected its name, or --list")
    line = fails(
        "bench", recipe, "--data", str(tmp_path), "--output", out, "--", "trainer.epochs=1"
    )
    assert line.startswith("unknown setting trainer.epochs")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    full = str(tmp_path / "full")
    for more in ([], ["--overwrite"]):
        line = fails("bench", recipe, "--data", str(tmp_path), "--output", full, *more)
        assert line == f"{full}: holds other things than a bench, expected another --output"
    assert main(["bench", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipes_page_has_the_published_commands_and_figures(name: str) -> None:
    folder = recipes_dir() / name
    published = read_published(folder)
    check_words(published, folder / "bench.yaml")
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert f"asr bench {name}" in page
    assert "bench.yaml" in page
    shown = commands(folder / "README.md")
    for words in published.commands:
        optional = published.data == "optional"
        expected = [word.replace(DATA, "DATA") for word in words if not (optional and DATA in word)]
        assert expected in shown, expected
    for figure in published.figures:
        assert f"{figure.wer_percent:g} %" in page
    assert published.date in page
