"""KEY=VALUE: what is misspelt, missing or of a wrong type is told, what Hydra takes is taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from asr.cli.build import check_config, check_section, plain
from asr.cli.conf import KINDS, compose, conf_dir, config_groups
from asr.cli.main import HYDRA_COMMANDS
from asr.cli.overrides import FLAGS, WITH_VALUE, check_overrides, parted, plain_override

DATA = ["data.train=a.jsonl", "data.dev=b.jsonl"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=bilstm_ctc_smal"], "model=bilstm_ctc_smal: no conf/model/bilstm_ctc_smal.yaml, "
         "did you mean bilstm_ctc_small?"),
        (["optim=adam,sdg"], "optim=sdg: no conf/optim/sdg.yaml, did you mean sgd?"),
        (["schedule=x"], "schedule=x: no conf/schedule/x.yaml, expected one of constant, cosine, "
         "inverse_sqrt, linear"),
        (["optim.lrr=1"], "unknown setting optim.lrr: did you mean optim.lr?"),
        (["optim.amsgrad=true"], "unknown setting optim.amsgrad: did you mean +optim.amsgrad?"),
        (["~optim.lrr", "num_layers=3"], "unknown setting num_layers: did you mean "
         "model.num_layers?"),
        (["modle=x"], "unknown setting modle: did you mean model?"),
        (["sed=1"], "unknown setting sed: did you mean seed?"),
        (["optim.betas.x=1", "augment.spec.x=1"], "unknown setting "
         "augment.spec.x: expected one of augment.spec.freq_masks, augment.spec.freq_width, "
         "augment.spec.time_masks_per_s, augment.spec.time_width, augment.spec.time_share, "
         "augment.spec.frame_shift_ms"),
        (["augment/noise=folder"], "augment/noise: no group of asr train as it is set, expected "
         "augment=any_microphone or augment=full or augment=noisy"),
        (["decoder=beam"], "decoder: no group of asr train as it is set, expected one of data, "
         "features, augment/pauses, augment, model, optim, schedule, trainer, paths, experiment, "
         "sweep, debug"),
        (["seed"], "seed: no KEY=VALUE, expected one (asr train --help)"),
        (["--multirn"], "unknown option --multirn: did you mean --multirun?"),
        (["--multi"], "unknown option --multi: did you mean --multirun?"),
    ],
)  # fmt: skip
def test_what_is_misspelt_is_told_with_the_nearest(
    words: list[str], message: str, fails: Callable[..., str]
) -> None:
    assert fails("train", *DATA, *words) == message


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hotwords={stop:4}", "hotwords: decoder=greedy has none, expected it beside decoder=beam "
         "or decoder=beam_ngram or decoder=beam_phones"),
        ("nonsense=1", "nonsense: decoder=greedy has no settings"),
    ],
)  # fmt: skip
def test_settings_of_another_option_of_a_group_are_told(
    setting: str, message: str, fails: Callable[..., str]
) -> None:
    line = fails("evaluate", "model_file=a", "manifest=b", f"decoder.{setting}")
    assert line == f"unknown setting decoder.{message}"


def test_options_may_stand_between_settings(fails: Callable[..., str], tmp_path: Path) -> None:
    words = ["--multirun", f"paths.run_dir={tmp_path}", "--config-dir", str(tmp_path), "seed=1"]
    assert parted(["name=x", *words]) == (
        ["--multirun", "--config-dir", str(tmp_path)],
        ["name=x", f"paths.run_dir={tmp_path}", "seed=1"],
    )
    line = fails("train", *DATA, *words)
    assert line.endswith("job 0: a.jsonl: No such file or directory")


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["train"], "data.train"),
        (["train", "data=shar", DATA[0]], "data.dev"),
        (["train", *DATA, "augment=noisy", "augment/noise=folder"],
         "augment.waveform.noise.source.folder"),
        (["evaluate", "model_file=x"], "manifest"),
        (["evaluate", "model_file=x", "manifest=x", "decoder=beam_ngram"],
         "decoder.language_model"),
        (["prepare", "corpus=manifest", "--multirun"], "corpus.name"),
    ],
)  # fmt: skip
def test_what_is_missing_is_told(words: list[str], missing: str, fails: Callable[..., str]) -> None:
    assert fails(*words) == f"{missing} is missing, expected {missing}=VALUE"


@pytest.mark.parametrize("command", HYDRA_COMMANDS)
def test_no_name_that_there_is_is_refused(command: str) -> None:
    given = [f"{key}=x" for key, each in compose(command, {}).settings.leaves()
             if each.value == "???"]  # fmt: skip
    for group in compose(command, {}).choices:
        for option in (*config_groups()[group], "null"):
            chosen = {group: None if option == "null" else option}
            for key, _ in compose(command, chosen).settings.leaves():
                sections = [key.rsplit(".", count)[0] for count in range(key.count(".") + 1)]
                rest = [] if "???" not in str(compose(command, chosen)) else [
                    f"{each}=x" for each, setting in compose(command, chosen).settings.leaves()
                    if setting.value == "???"
                ]  # fmt: skip
                for section in set(sections) - set(config_groups()):
                    words = [*given, *rest, f"{group}={option}", f"{section}=${{seed}}"]
                    check_overrides(command, words)


@pytest.mark.parametrize(
    "words",
    [
        ["+model.new=1"], ["++optim.x.y=1"], ["~augment.spec"], ["hydra.mode=RUN"],
        ["hydra/launcher=joblib"],
        ["optim=sgd,adam", "optim.momentum=0.5", "--multirun"],
        ["seed=1,2", "--multirun"], ["optim.lr=choice(1,2)", "-m"],
        ["--config-dir", "elsewhere", "model=own"], ["--cfg", "job"], ["-c", "all", "--resolve"],
        ["--info", "plugins"], ["experiment=[fsdd,digits_demo]"], ["model@other=lstm_ctc_small"],
        ["augment=noisy", "augment.waveform.noise.probability=1"], ["'data.train=a b.jsonl'"],
        ["resume=runs/train/x", "augment.waveform.noise.probability=1"], ["data={a: 1}"],
        ["augment.waveform.speeds=[1]"], ["name=a=b"],
    ],
)  # fmt: skip
def test_what_only_hydra_can_judge_is_left_to_it(words: list[str]) -> None:
    check_overrides("train", [*DATA, *words])


def test_a_decoder_file_has_its_own_settings() -> None:
    given = ["model_file=x", "manifest=x", "decoder=tuned.yaml", "decoder.lm_weight=1"]
    check_overrides("evaluate", given)


def test_the_options_are_those_of_hydra() -> None:
    from hydra._internal.utils import get_args_parser  # what `--hydra-help` prints

    names = [name for action in get_args_parser()._actions for name in action.option_strings]
    assert sorted(names) == sorted(WITH_VALUE + FLAGS)


# Of a wrong type: the same words whether Hydra has composed the settings or not.

VALUES = ("abc", "2.5", "-1", "null", "true", "1e30", ".5", "007", "[1]", "[a]", "{a: 1}", "'3'")
CHOICES = (
    ["train"], ["train", "data=shar", "augment=noisy"], ["train", "features=kaldi_80"],
    ["train", "augment=noisy", "augment/noise=folder", "augment/room=folder"],
    *(["train", f"optim={name}"] for name in ("adam", "rmsprop", "sgd")),
    *(["train", f"schedule={name}"] for name in ("constant", "linear", "inverse_sqrt")),
    *(["evaluate", f"decoder={name}"] for name in config_groups()["decoder"]),
    *(["prepare", f"corpus={name}"] for name in config_groups()["corpus"]),
)  # fmt: skip


def refused(check: Callable[..., object], *arguments: object) -> str | None:
    try:
        check(*arguments)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("words", CHOICES, ids=" ".join)
def test_every_value_of_another_type_is_one_line_with_and_without_hydra(words: list[str]) -> None:
    command, *chosen = words
    composed = compose(command, dict(word.split("=") for word in chosen)).settings
    given = [f"{key}=x" for key, each in composed.leaves() if each.value == "???"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra_compose(command, [*chosen, *given])
    OmegaConf.set_struct(config, False)
    before = OmegaConf.to_container(config, resolve=False)
    parser = OverridesParser.create()
    early = 0
    sections = {word.partition("=")[0].partition("/")[0] for word in chosen}
    keys = {
        key.rsplit(".", count)[0]
        for key, _ in composed.leaves() for count in range(key.count(".") + 1)
        if not sections or key.split(".")[0] in sections
    } - set(config_groups())  # fmt: skip
    keys = {key for key in keys if not key.rpartition(".")[2].startswith("_")}
    for key in sorted(keys):
        for text in VALUES:
            word = f"{key}={text}"
            value = parser.parse_override(word).value()
            OmegaConf.update(config, key, value, merge=False)
            section = key.split(".")[0]
            kinds = {each: kind for each, kind in KINDS[command].items() if each == key}
            if section in config_groups() and f"{section}._target_" in dict(composed.leaves()):
                late = refused(check_section, plain(config, section), section)
            else:
                late = refused(check_config, OmegaConf.masked_copy(config, [section]), kinds)
            # A copy of all settings for each value would take most of the time of this test.
            OmegaConf.update(config, section, before[section], merge=False)
            found = refused(check_overrides, command, [*chosen, *given, word])
            assert found in (None, late), word
            early += found is not None
    assert early > len(keys) or words == ["evaluate", "decoder=greedy"]  # which has no settings


# --- words that stand in a file ------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        "optim.lr=0.001", "model=bilstm_ctc_medium", "augment/noise=folder", "experiment=null",
        "+optim.eps=1e-6", "++optim.lr=3", "data.train=[a.jsonl,b.jsonl]", "name='a b, c'",
        "data.dev=${data.train}", "data.train=${paths.data_dir}/mine/train.jsonl", "~augment.spec",
        "augment.waveform.gain_db=[-6.0,3]", "decoder.hotwords={acme:3}", "experiment=mine/first",
        "overwrite=true", "seed=", "alphabet='ab ${'",
    ],
)  # fmt: skip
def test_settings_of_a_training_come_from_its_record(word: str) -> None:
    if word.endswith("${'"):
        with pytest.raises(ValueError, match="not a look-up"):
            plain_override(word, config_groups(), Path("overrides.yaml"))
    else:
        assert plain_override(word, config_groups(), Path("overrides.yaml")) == word


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("++data.text.x={_target_: os.system, command: id}", "expected plain values, no class"),
        ("data.text={a: [{_target_: os.system}]}", "expected plain values, no class"),
        ("++hydra.callbacks={a: {_target_: os.system}}", "expected no setting of Hydra's"),
        ("++hydra.job.env_set={LD_PRELOAD: evil.so}", "expected no setting of Hydra's"),
        ("hydra/launcher=submitit_slurm", "expected no setting of Hydra's"),
        ("hydra.searchpath=[file:///evil]", "expected no setting of Hydra's"),
        ("model@hydra.callbacks=evil", "expected the name of a setting"),
        ("experiment@_global_=evil", "expected the name of a setting"),
        ("model=../../evil", "expected the name of a file in conf/model"),
        ("experiment=/evil", "expected the name of a file in conf/experiment"),
        ("experiment=[a,../b]", "expected the name of a file in conf/experiment"),
        ("data.train=${oc.env:SECRET}", "expected a value, not a look-up"),
        ("data.train=[a,'${oc.env:SECRET}']", "expected a value, not a look-up"),
        ("name=x${oc.decode:'1'}", "expected a value, not a look-up"),
        ("optim.lr=1,2", "expected one value"),
        ("optim.lr=choice(1,2)", "expected one value"),
        ("--config-dir=/evil", "expected KEY=VALUE"),
        ("-m", "expected KEY=VALUE"),
        ("words", "expected KEY=VALUE"),
        (3, "expected KEY=VALUE"),
        ({"a": 1}, "expected KEY=VALUE"),
    ],
)
def test_what_would_run_or_look_up_something_does_not(word: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        plain_override(word, config_groups(), Path("overrides.yaml"))
    assert str(error.value).startswith("overrides.yaml: ")
