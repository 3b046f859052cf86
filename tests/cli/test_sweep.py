"""Several trainings by one command: grids, folds, TPE, launchers, processes, Slurm, failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from asr.cli.hydra_app import quoted
from asr.cli.main import main
from asr.cli.processes import check_started_by_srun, torchrun_variables
from asr.cli.train import objective
from asr.model_file import load_model
from asr.report.runs import read_validations

pytestmark = pytest.mark.usefixtures("no_pictures")

Fails = Callable[..., str]
# What the installed Slurm 22.05 sets in the second of two tasks: srun --ntasks=2 within sbatch.
SRUN = {
    "SLURM_JOB_ID": "70123", "SLURM_JOB_NAME": "job.sh", "SLURM_JOB_NODELIST": "127.0.0.1",
    "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "1", "SLURM_NTASKS": "2",
    "SLURM_TASKS_PER_NODE": "2", "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "0",
}  # fmt: skip


@pytest.fixture
def train(corpus: Path, tmp_path: Path, tiny: tuple[str, ...]) -> list[str]:
    """An `asr train` of one epoch into tmp_path/train, its dev set still to be named."""
    paths = [f"data.train={corpus}", f"paths.run_dir={tmp_path}"]
    return ["train", *tiny, *paths, "trainer.max_epochs=1"]


@pytest.fixture
def optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna without its own messages on the standard error of the test that loads it first."""
    monkeypatch.setenv("SQLALCHEMY_SILENCE_UBER_WARNING", "1")
    import optuna

    optuna.logging.disable_default_handler()


def jobs_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_a_grid_names_its_folders_and_a_failed_job_leaves_the_others_going(
    train: list[str], corpus: Path, tmp_path: Path, fails: Fails
) -> None:
    grid = ["sweep=grid", "name=g", "optim.lr=0.01", "model.hidden_size=8,16"]
    line = fails(*train, f"data.dev={corpus}", *grid, "model.dropout=7,0.1")
    folder = tmp_path / "train" / "g"
    assert jobs_of(folder) == [
        "0_lr0.01_units8_dropout7", "1_lr0.01_units8_dropout0.1",
        "2_lr0.01_units16_dropout7", "3_lr0.01_units16_dropout0.1",
    ]  # fmt: skip
    mistake = "dropout 7, expected 0 to 1"
    assert line == (f"2 jobs failed ({folder / 'failed.jsonl'}), the first one job 0: {mistake}")
    failed = [json.loads(row) for row in (folder / "failed.jsonl").read_text().splitlines()]
    assert [(row["job"], row["error"]) for row in failed] == [(0, mistake), (2, mistake)]
    assert "model.hidden_size=16" in failed[1]["overrides"]
    assert (folder / "2_lr0.01_units16_dropout7" / "error.txt").read_text() == f"{mistake}\n"
    for job in ("1_lr0.01_units8_dropout0.1", "3_lr0.01_units16_dropout0.1"):
        assert len(read_validations(folder / job)) == 1
        assert not (folder / job / "error.txt").exists()


def test_a_second_sweep_of_the_same_name_touches_nothing(
    train: list[str], corpus: Path, tmp_path: Path, fails: Fails
) -> None:
    sweep = ["train", "--multirun", *train[1:], f"data.dev={corpus}", "name=s", "seed=3,4"]
    assert main(sweep) == 0
    models = [tmp_path / "train" / "s" / job / "best.safetensors" for job in "01"]
    before = [path.read_bytes() for path in models]
    assert "2 jobs failed" in (line := fails(*sweep))
    assert "already holds a training" in line
    assert [path.read_bytes() for path in models] == before
    assert not list((tmp_path / "train").rglob("error.txt"))
    assert main([*sweep, "resume=auto"]) == 0
    assert [path.read_bytes() for path in models] == before


def test_a_job_of_a_sweep_is_resumed_by_itself(
    train: list[str], corpus: Path, tmp_path: Path
) -> None:
    grid = ["sweep=grid", "name=g", "optim.lr=0.01", "model.hidden_size=8", "model.dropout=0"]
    assert main([*train, f"data.dev={corpus}", *grid]) == 0
    (job,) = (tmp_path / "train" / "g").glob("0_*")
    assert main(["train", f"resume={job}", "trainer.max_epochs=3"]) == 0
    assert [row.epoch for row in read_validations(job)] == [1, 2, 3]
    assert jobs_of(tmp_path / "train" / "g") == [job.name]


def test_a_training_that_fails_says_why_in_its_folder_until_it_is_begun_anew(
    train: list[str], corpus: Path, tmp_path: Path, fails: Fails
) -> None:
    alone = [*train, f"data.dev={corpus}", "name=x"]
    line = fails(*alone, "model.dropout=7")
    error_file = tmp_path / "train" / "x" / "error.txt"
    assert error_file.read_text() == f"{line}\n"
    assert main(alone) == 0
    assert not error_file.exists()


def test_folds_are_trained_one_by_one_with_models_of_one_size(
    train: list[str], tmp_path: Path
) -> None:
    assert main([*train, "sweep=folds", "data.folds=3", "name=f"]) == 0
    folder = tmp_path / "train" / "f"
    assert jobs_of(folder) == ["0_fold0", "1_fold1", "2_fold2"]
    models = [load_model(folder / job / "last.safetensors")[0] for job in jobs_of(folder)]
    assert {model.spec.alphabet for model in models} == {" abc"}
    assert len({model.state_dict()["model.head.weight"].shape for model in models}) == 1


def test_the_objective_is_the_wer_and_equal_ones_are_parted_by_the_cer(tmp_path: Path) -> None:
    rows = ["1,1,1,1,0.1,0.5,0.01", "2,2,2,1,9.0,0.4,0.3", "3,3,3,1,9.0,0.4,0.2"]
    header = "step,epoch,elapsed_s,audio_h,loss,wer,cer"
    (tmp_path / "validations.csv").write_text("\n".join([header, *rows, ""]))
    assert objective(tmp_path) == pytest.approx(0.4002)


def test_tpe_minimises_the_objective_and_counts_a_failed_trial_as_failed(
    train: list[str], corpus: Path, tmp_path: Path, fails: Fails, optuna: None
) -> None:
    words = [word for word in train if not word.startswith(("optim.lr", "model."))]
    # The first six draws of seed 0 have both dropouts among them.
    space = ["model.hidden_size=choice(8,16)", "model.num_layers=1", "model.dropout=choice(0.0,9)"]
    sweep = ["sweep=tpe", "name=t", "hydra.sweeper.n_trials=6", "model.channels=4"]
    line = fails(*words, f"data.dev={corpus}", *sweep, *space)
    folder = tmp_path / "train" / "t"
    assert line.endswith("dropout 9, expected 0 to 1")
    assert jobs_of(folder) == list("012345")
    failed = len((folder / "failed.jsonl").read_text().splitlines())
    done = [job for job in folder.iterdir() if (job / "validations.csv").exists()]
    assert 0 < failed < 6
    assert len(done) == 6 - failed
    best = min(done, key=objective)
    found = OmegaConf.load(folder / "optimization_results.yaml")
    assert found.best_value == objective(best)
    settings = OmegaConf.load(best / ".hydra" / "config.yaml")
    assert found.best_params["optim.lr"] == settings.optim.lr
    rates = {OmegaConf.load(path).optim.lr for path in folder.glob("*/.hydra/config.yaml")}
    assert len(rates) == 6
    assert all(0.0005 <= rate <= 0.01 for rate in rates)


def test_a_search_without_a_success_says_why(
    train: list[str], corpus: Path, fails: Fails, optuna: None
) -> None:
    sweep = ["sweep=tpe", "name=t", "hydra.sweeper.n_trials=2", "model.num_layers=1"]
    words = [*train, f"data.dev={corpus}", *sweep, "model.dropout=9", "optim.lr=0.01"]
    line = fails(*words)
    assert line.startswith("2 jobs failed (")
    assert line.endswith("the first one job 0: dropout 9, expected 0 to 1")


@pytest.mark.parametrize(
    ("words", "plugin"),
    [
        (["sweep=tpe"], "hydra/sweeper/optuna"),
        (["--multirun", "hydra/launcher=joblib"], "hydra/launcher/joblib"),
        (["--multirun", "hydra/launcher=submitit_slurm"], "hydra/launcher/submitit"),
    ],
)
def test_a_plugin_that_is_not_installed(words: list[str], plugin: str, tmp_path: Path) -> None:
    code = (
        "import sys, types; found = types.ModuleType('hydra_plugins'); found.__path__ = []\n"
        "sys.modules['hydra_plugins'] = found\n"
        "from asr.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    paths = [f"paths.run_dir={tmp_path}", "data.train=x.jsonl"]
    command = [sys.executable, "-c", code, "train", *words, *paths]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.stderr == (
        f"asr: error: {plugin} is not installed: pip install 'lstm-asr[sweep]'\n"
    )
    assert result.returncode == 2


# Other processes.


def run(*words: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | (variables or {})
    command = [sys.executable, "-m", "asr", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def failure(result: subprocess.CompletedProcess[str]) -> str:
    """The line that tells a user's mistake; others may be from Hydra's plugins."""
    assert result.returncode == 2, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("asr: error: "))
    assert line == result.stderr.splitlines()[-1]
    return line.removeprefix("asr: error: ")


@pytest.mark.slow
def test_the_jobs_of_a_sweep_train_on_two_processes_each(
    train: list[str], corpus: Path, tmp_path: Path
) -> None:
    name = "it's, a=sweep"
    words = [*train[1:], f"data.dev={corpus}", quoted("name", name), "trainer.devices=2"]
    result = run("train", "--multirun", *words, "seed=3", "model.dropout=0,7")
    assert failure(result).endswith("job 1: dropout 7, expected 0 to 1")
    folder = tmp_path / "train" / name
    assert jobs_of(folder) == list("01")
    assert jobs_of(tmp_path / "train") == [name]
    assert len(read_validations(folder / "0")) == 1
    assert OmegaConf.load(folder / "0" / ".hydra" / "config.yaml").seed == 3
    assert "2 process(es)" in (folder / "0" / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_that_other_processes_run(
    launcher: str, train: list[str], corpus: Path, tmp_path: Path
) -> None:
    words = [*train[1:], f"data.dev={corpus}", "name=s", f"hydra/launcher={launcher}"]
    parallel = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    result = run("train", "--multirun", *words, "model.dropout=0,7,0.1", *parallel)
    folder = tmp_path / "train" / "s"
    assert failure(result) == (
        f"1 job failed ({folder / 'failed.jsonl'}), the first one job 1: dropout 7, expected 0 to 1"
    )
    assert [len(read_validations(folder / job)) for job in "02"] == [1, 1]


def test_the_variables_of_a_task_are_those_of_torchrun() -> None:
    assert torchrun_variables(SRUN) == {
        "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(12_000 + (101 * 70123 + 3) % 20_000),
    }  # fmt: skip
    nodes = {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "gpu[07-08]"}
    task = {**nodes, "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
    found = torchrun_variables({**SRUN, **task})
    assert (found["LOCAL_WORLD_SIZE"], found["GROUP_RANK"]) == ("4", "1")
    assert found["MASTER_ADDR"] == "gpu07"
    for names, first in (("a1,b2", "a1"), ("gpu[3,5-9]x,y", "gpu3x"), ("n[01],m", "n01")):
        found = torchrun_variables({**SRUN, **task, "SLURM_STEP_NODELIST": names})
        assert found["MASTER_ADDR"] == first
    with pytest.raises(ValueError, match="8 tasks on 3 nodes, expected as many on each"):
        torchrun_variables({**SRUN, **task, "SLURM_STEP_NUM_NODES": "3"})


def test_who_is_alone_is_no_task_of_several() -> None:
    batch_script = {key: value for key, value in SRUN.items() if "STEP" not in key}
    for alone in ({}, {**SRUN, "SLURM_NTASKS": "1"}, batch_script, {**SRUN, "RANK": "0"}):
        assert torchrun_variables(alone) == {}
    for fine in ({}, SRUN, {**batch_script, "SLURM_JOB_NAME": "interactive"}):
        check_started_by_srun(fine)
    with pytest.raises(ValueError, match=r"2 tasks for this job.*'srun asr train \.\.\.'"):
        check_started_by_srun(batch_script)


@pytest.mark.slow
def test_two_tasks_of_srun_train_one_model(train: list[str], corpus: Path, tmp_path: Path) -> None:
    words = [*train, f"data.dev={corpus}", "trainer.batch_duration_s=1", "name=slurm"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | SRUN
    tasks = [
        subprocess.Popen(
            [sys.executable, "-m", "asr", *words],
            env=environment | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    outputs = [task.communicate(timeout=100)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert "2 process(es)" in outputs[0]
    assert outputs[1] == ""
    slurm = read_validations(tmp_path / "train" / "slurm")
    assert main([*words[:-1], "name=one", "trainer.accumulate=2"]) == 0
    alone = read_validations(tmp_path / "train" / "one")
    assert [row.step for row in slurm] == [row.step for row in alone]
    assert slurm[0].loss == pytest.approx(alone[0].loss, rel=1e-3)


def test_srun_forgotten(
    train: list[str], corpus: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    for key, value in SRUN.items():
        if "STEP" not in key:
            monkeypatch.setenv(key, value)
    line = fails(*train, f"data.dev={corpus}", "name=x")
    assert line == (
        "Slurm has 2 tasks for this job, of which only one trains: expected 'srun asr train ...', "
        "or trainer.devices=2"
    )
