"""The comments of conf/ are the help; test_configs.py compares what is read with Hydra's."""

from __future__ import annotations

import pytest

from asr.cli.conf import compose, config_groups, read_config
from asr.cli.main import HYDRA_COMMANDS, main


def test_comments_stand_beside_or_above() -> None:
    settings = compose("train", {"experiment": "digits_demo"}).settings
    for key, comment in (
        ("model.subsampling", "feature frames for one LSTM frame: 1, 2, 3, 4 or 8"),
        ("init_from", "A model file to start from, of another training: its architecture, "),
        ("trainer.accelerator", "cpu, cuda; auto is"),  # not that of the experiment
        ("optim.betas", ""),
    ):
        found = settings.find(key)
        assert found is not None
        assert found.comment.startswith(comment)
        assert bool(found.comment) is bool(comment)


def test_a_file_says_what_it_is() -> None:
    assert read_config("model/bilstm_ctc_small").about.startswith("Small: ")
    assert read_config("experiment/fsdd").about.startswith("Test WER (official split) ")
    assert read_config("sweep/grid").about.startswith("every combination of these values")
    for group, options in config_groups().items():
        for option in options:
            assert group == "hydra" or read_config(f"{group}/{option}").about, (group, option)


@pytest.mark.parametrize("command", HYDRA_COMMANDS)
def test_help_has_the_groups_of_the_command_and_each_setting(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    composed = compose(command, {})
    shown = {line.split()[-1] if line[0] == "*" else line.split()[0] for line in lines if line}
    assert f"usage: asr {command} [GROUP=OPTION | KEY=VALUE ...]" in lines
    for group in config_groups():
        options = [line for line in lines if line[2:].startswith(f"{group}=")]
        assert len(options) == (len(config_groups()[group]) if group in composed.choices else 0) + (
            group in dict(composed.settings.leaves())
        ), group
    for key, setting in composed.settings.leaves():
        (line,) = [line for line in lines if line.startswith(f"  {key}=")] or [""]
        assert bool(line) is ("._" not in key), shown
        assert line.endswith(setting.comment) or not line


def test_help_shows_the_settings_of_what_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "schedule=constant", "augment=noisy", "--help"]) == 0
    out = capsys.readouterr().out
    assert "schedule.floor" not in out
    assert "* schedule=constant" in out
    assert "  augment.waveform.noise.probability=0.5" in out
    assert "* augment/noise=synthetic" in out
