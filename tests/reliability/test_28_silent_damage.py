"""Check 28: what was wrong in silence, or ended the process, is one line."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors
import safetensors.torch
import soundfile
import torch
from rich.console import Console
from torch import Tensor, nn

from asr.audio import load_audio
from asr.cli.main import main
from asr.data.manifest import read_manifest, write_manifest
from asr.exporter import exported
from asr.finding import Finding, Kind
from asr.metrics.calibration import Calibration
from asr.metrics.error_rate import score_utterance
from asr.model_file import load_model, save_model
from asr.onnx_model import load_onnx_model, sealed
from asr.quantization import Storage
from asr.recognizer import ModelSpec, Part, Recognizer
from asr.report.evaluation import EvaluatedUtterance, Evaluation, ModelDescription
from asr.report.evaluation_file import (
    evaluation_to_json,
    read_calibration,
    read_evaluation,
    write_calibration,
)
from asr.report.html import render_evaluation
from asr.report.terminal import slice_table, summary, worst_utterances
from asr.trainer import trainer as one_training
from asr.trainer.checkpoint import Progress
from asr.word import Word
from tests.forgeries import forgeries
from tests.reliability.driver import recipe
from tests.reliability.training import Training
from tests.trainer.fitting import trainer_of

Survived = Callable[[str, int, int], None]
STATES = 30  # mutants
REPLACEMENTS = 10  # trainings whose audio is replaced
MODELS, FLIPS = 120, 20  # damaged files, bits flipped in each
AUDIO = Path(__file__).parents[2] / "recipes" / "digits_synthetic" / "audio"


# --- states -------------------------------------------------------------------------------------


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a state something stands that a resume depends on, as keys from the top."""
    if path and path[-1] not in ("settings", "surroundings", "window"):
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            if path[-1:] not in (("settings",), ("surroundings",)):
                yield from places(value, (*path, key))
    elif isinstance(tree, list) and path[-1] == "param_groups":
        for number in range(len(tree)):
            yield (*path, number, "params")


def mutations(value: Any) -> list[Any]:
    """Values of another shape or kind."""
    if isinstance(value, Tensor):
        return [
            value.new_zeros(()) if value.ndim else value.new_zeros(3),
            value.new_zeros((*value.shape, 1)), value.new_zeros(1 << 20), value.double(),
            value.new_zeros(0), value.to("meta"), torch.zeros(1).expand(1 << 40), 3, None, "x",
        ]  # fmt: skip
    if isinstance(value, bool | int | float):
        return ["3", None, -5, True, [], torch.zeros(2), 10**30, float("nan")]
    return [None, 3, "\x1b[31m", [], torch.zeros(3)]


def mutant(content: bytes, generator: np.random.Generator) -> tuple[str, bytes]:
    """A state with one thing changed, and what it is."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    known = sorted(places(state), key=repr)
    *above, key = path = known[generator.integers(len(known))]
    holder = state
    for name in above:
        holder = holder[name]
    if generator.random() < 0.2 and isinstance(holder, dict):
        what = "gone"
        del holder[key]
    else:
        choices = mutations(holder[key])
        what = str(number := int(generator.integers(len(choices))))
        holder[key] = choices[number]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return f"{'.'.join(map(str, path))} ({what})", buffer.getvalue()


@pytest.mark.slow
def test_no_state_of_another_shape_reaches_torch(
    corpus: Callable[..., Path], tmp_path: Path, seed: int, survived: Survived
) -> None:
    spec = {"train": str(corpus(60)), "dev": str(corpus(6, "dev"))}
    (tmp_path / "run").mkdir()
    trainer_of(max_epochs=1, scan_memory=False, keep_states=1).fit(recipe(spec), tmp_path / "run")
    generator = np.random.default_rng(seed)
    good = 0
    for number in range(STATES):
        folder = tmp_path / f"case{number}"
        shutil.copytree(tmp_path / "run", folder)
        (path,) = (folder / "state").glob("*.pt")
        what, content = mutant(path.read_bytes(), generator)
        path.write_bytes(content)
        index = json.loads((folder / "state" / "index.json").read_text())
        index["states"][0] |= {
            "size": len(content), "sha256": hashlib.sha256(content).hexdigest(),
        }  # fmt: skip
        (folder / "state" / "index.json").write_text(json.dumps(index))
        outcome = gone_on(folder, spec)
        fine = isinstance(outcome, str) and "\n" not in outcome and str(folder) in outcome
        assert fine, (what, outcome)
        good += fine
        shutil.rmtree(folder)
    survived("states of other shapes and kinds", good, STATES)


def gone_on(folder: Path, spec: dict[str, str]) -> Progress | str:
    """Where a training ends that goes on, or why it does not."""
    trainer = trainer_of(max_epochs=2, scan_memory=False)
    try:
        return trainer.fit(recipe(spec), folder, resume=True)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("entry", ["window", "group"])
def test_no_place_beyond_the_data_is_gone_on_from(
    corpus: Callable[..., Path], tmp_path: Path, entry: str
) -> None:
    spec = {"train": str(corpus(60)), "dev": str(corpus(6, "dev"))}
    trainer_of(max_epochs=1, scan_memory=False, keep_states=1).fit(recipe(spec), tmp_path)
    (path,) = (tmp_path / "state").glob("*.pt")
    state = torch.load(io.BytesIO(path.read_bytes()), weights_only=True)
    state["progress"][entry] = 10**6
    torch.save(state, path.with_name("999999-step-9.pt"))
    outcome = gone_on(tmp_path, spec)
    assert isinstance(outcome, str)
    assert f" {10**6}" in outcome
    assert "\n" not in outcome


# --- model files --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    """A small model with weights of order one."""
    torch.manual_seed(28)
    features = Part("LogMel", {"sample_rate": 8000, "n_mels": 10})
    model = Part("BiLstmCtc", {"hidden_size": 6, "num_layers": 1, "channels": 2})
    made = Recognizer(ModelSpec(features, model, "abcd", {}))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made.eval()


def flipped(whole: bytes, generator: np.random.Generator) -> bytes:
    """The bytes with some bits turned."""
    damaged = np.frombuffer(whole, np.uint8).copy()
    places = generator.integers(len(damaged), size=FLIPS)
    np.bitwise_xor.at(damaged, places, (1 << generator.integers(8, size=FLIPS)).astype("u1"))
    return damaged.tobytes()


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_no_damaged_model_writes_another_text(
    recognizer: Recognizer, tmp_path: Path, seed: int, survived: Survived, storage: Storage
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, recognizer, {"step": 12}, storage)
    whole = path.read_bytes()
    generator = np.random.default_rng(seed)
    good = 0
    for _ in range(MODELS):
        path.write_bytes(flipped(whole, generator))
        good += is_one_line(lambda: load_model(path))
    survived(f"model files in {storage} with flipped bits", good, MODELS)


def test_no_damaged_exported_model_writes_another_text(
    recognizer: Recognizer, tmp_path: Path, seed: int, survived: Survived
) -> None:
    path, whole = tmp_path / "model.onnx", exported(recognizer, {"step": 12})
    generator = np.random.default_rng(seed)
    good = 0
    for _ in range(MODELS):
        path.write_bytes(flipped(whole, generator))
        good += is_one_line(lambda: load_onnx_model(path))
    survived("exported models with flipped bits", good, MODELS)


@pytest.mark.slow
def test_every_value_of_an_exported_description_may_be_forged(
    recognizer: Recognizer, tmp_path: Path, survived: Survived
) -> None:
    path, content = tmp_path / "model.onnx", exported(recognizer, {"step": 12, "dev_wer": 0.1})
    proto = onnx.load_from_string(content)
    texts = {each.key: each.value for each in proto.metadata_props}
    tried = good = 0
    for what, forged in forgeries(json.loads(texts["asr"])):
        del proto.metadata_props[:]
        proto.metadata_props.add(key="asr", value=json.dumps(forged))
        path.write_bytes(sealed(proto.SerializeToString()))
        tried += 1
        fine = is_one_line(lambda: load_onnx_model(path)) or is_heard_without_torch(path)
        assert fine, what
        good += fine
    assert tried > 300
    survived("forged descriptions of exported models", good, tried)


def is_heard_without_torch(path: Path) -> bool:
    """Whether an exported model loads, and makes numbers or says why not."""
    model, _ = load_onnx_model(path)
    with suppress(ValueError):
        log_probs, _ = model.log_probs([np.zeros(4000, np.float32)])
        return bool(np.isfinite(log_probs).all())
    return True


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_model_with_a_weight_that_is_not_finite_is_used(
    recognizer: Recognizer, tmp_path: Path, value: float, survived: Survived
) -> None:
    whole, damaged = tmp_path / "whole.safetensors", tmp_path / "damaged.safetensors"
    save_model(whole, recognizer, {})
    good = 0
    names = [name for name, _ in recognizer.named_parameters()]
    for name in names:
        forge_weight(whole, damaged, name, value)
        average = ["average", str(whole), str(damaged), "--output", str(tmp_path / "mean")]
        good += is_one_line(lambda: load_model(damaged)) and main(average) == 2
    assert not (tmp_path / "mean").exists()
    survived("weights that are not finite", good, len(names))


def forge_weight(whole: Path, target: Path, name: str, value: float) -> None:
    """A model file as an older version wrote it, without checksum, with a weight changed."""
    with safetensors.safe_open(whole, framework="pt") as file:
        metadata = {"asr": file.metadata()["asr"]}
    weights = safetensors.torch.load_file(whole)
    weights[name].view(-1)[0] = value
    target.write_bytes(safetensors.torch.save(weights, metadata))


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_every_value_of_a_description_may_be_forged(
    recognizer: Recognizer, tmp_path: Path, survived: Survived, storage: Storage
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, recognizer, {"step": 12, "dev_wer": 0.1, "init_from": "a"}, storage)
    with safetensors.safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["asr"])
    # Copies: what is loaded lies in the file, which is written over.
    weights = {name: each.clone() for name, each in safetensors.torch.load_file(path).items()}
    tried = good = 0
    for what, forged in forgeries(description):
        path.write_bytes(safetensors.torch.save(weights, {"asr": json.dumps(forged)}))
        tried += 1
        fine = is_one_line(lambda: load_model(path)) or is_heard(path)
        assert fine, what
        good += fine
    assert tried > 300
    survived(f"forged descriptions of {storage}", good, tried)


def is_heard(path: Path) -> bool:
    """Whether a model file loads and makes numbers of a waveform."""
    log_probs, _ = load_model(path)[0](torch.zeros(1, 4000), torch.tensor([4000]))
    return bool(torch.isfinite(log_probs).all())


def is_one_line(act: Callable[[], object]) -> bool:
    """Whether something is refused as a user's mistake, in one line of a length to read."""
    try:
        act()
    except ValueError as error:
        return "\n" not in str(error) and len(str(error)) < 1000
    return False


# --- audio --------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_no_cut_ogg_is_taken_for_whole(
    tmp_path: Path, subtype: str, seed: int, survived: Survived
) -> None:
    generator = np.random.default_rng(seed)
    path = tmp_path / "audio.ogg"
    good = 0
    for percent in range(1, 100):
        if percent % 20 == 1:
            samples = 0.1 * generator.standard_normal(generator.integers(8000, 80_000))
            soundfile.write(path, samples, 16_000, format="OGG", subtype=subtype)
            whole = path.read_bytes()
            assert len(load_audio(path, 16_000)) >= len(samples)
        path.write_bytes(whole[: max(1, len(whole) * percent // 100)])
        good += is_one_line(lambda: load_audio(path, 16_000))
    survived(f"cut {subtype.lower()} files", good, 99)


@pytest.mark.slow
def test_every_whole_opus_file_is_read(survived: Survived) -> None:
    paths = sorted(AUDIO.rglob("*.opus"))
    assert len(paths) == 2048
    good = sum(len(load_audio(path, 16_000)) > 0 for path in paths)
    survived("whole opus files", good, len(paths))


@pytest.mark.slow
def test_replaced_audio_is_told_on_a_resume(
    corpus: Callable[..., Path],
    tmp_path: Path,
    seed: int,
    survived: Survived,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train = own_copy(corpus(60), tmp_path / "train")
    spec = {"train": str(train), "dev": str(corpus(6, "dev"))}
    paths = [each.audio_filepath for each in read_manifest(train)]
    generator = np.random.default_rng(seed)
    good = 0
    for number in range(REPLACEMENTS):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        begin(folder, spec)
        count = int(generator.integers(1, 10))
        for path in generator.choice(paths, count, replace=False):  # type: ignore[arg-type]
            content = bytearray(path.read_bytes())
            content[-1] ^= 1  # of the same size
            path.write_bytes(content)
        caplog.clear()
        begin(folder, spec, resume=True)
        told = [line for line in caplog.messages if "resumed on other audio than before" in line]
        good += len(told) == 1 and f": {count} of 60 files have another size or time" in told[0]
    survived("replaced audio told", good, REPLACEMENTS)


def begin(folder: Path, spec: dict[str, str], resume: bool = False) -> None:
    """A training up to its first step, whose state is saved."""
    trainer = trainer_of(max_epochs=1, scan_memory=False)
    one_training.Training(trainer, recipe(spec), folder, resume).save()


# --- dev ----------------------------------------------------------------------------------------


def test_damaged_dev_audio_stops_a_training_before_its_first_step(
    corpus: Callable[..., Path], tmp_path: Path
) -> None:
    spec = {"train": str(corpus(60)), "dev": str(dev_of(corpus, tmp_path))}
    with pytest.raises(ValueError, match=damage_dev(tmp_path)):
        trainer_of(max_epochs=2, scan_memory=False).fit(recipe(spec), tmp_path)
    assert not (tmp_path / "state").exists()


@pytest.mark.slow
@pytest.mark.parametrize("resume", [False, True])
def test_damaged_dev_audio_costs_an_earlier_training_nothing(
    corpus: Callable[..., Path], tmp_path: Path, resume: bool
) -> None:
    spec = {"train": str(corpus(60)), "dev": str(dev_of(corpus, tmp_path))}
    trainer_of(max_epochs=1, scan_memory=False).fit(recipe(spec), tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    with pytest.raises(ValueError, match=damage_dev(tmp_path)):
        trainer_of(max_epochs=2, scan_memory=False).fit(recipe(spec), tmp_path, resume)
    assert {path: path.read_bytes() for path in (tmp_path / "state").iterdir()} == before


def damage_dev(tmp_path: Path) -> str:
    """Cut two of the files short; returns the line that is expected of them."""
    damaged = sorted(tmp_path.glob("dev/*.wav"))[2:4]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:500])
    return rf"^2 of 6 dev utterances cannot be used, .*; first: \S+: {damaged[0]}: cut short"


def dev_of(corpus: Callable[..., Path], tmp_path: Path) -> Path:
    """Six dev utterances of a test's own, which it may damage."""
    return own_copy(corpus(6, "dev"), tmp_path / "dev")


def own_copy(manifest: Path, folder: Path) -> Path:
    """A manifest of copies of the audio, in their order."""
    folder.mkdir()
    own = []
    for number, each in enumerate(read_manifest(manifest)):
        path = folder / f"{number:02d}.wav"
        shutil.copy(each.audio_filepath, path)
        own.append(replace(each, audio_filepath=path))
    write_manifest(folder.with_suffix(".jsonl"), own)
    return folder.with_suffix(".jsonl")


@pytest.mark.slow
def test_all_processes_leave_together_where_one_finds_damage(
    corpus: Callable[..., Path], tmp_path: Path
) -> None:
    dev = dev_of(corpus, tmp_path)
    (tmp_path / "dev" / "00.wav").write_bytes(b"")
    training = Training(tmp_path / "run", corpus(60), dev, ranks=2, settings={"max_epochs": 1})
    status, output = training.finish()
    assert status != 0, output
    told = [training.events("refused", rank)[0]["message"] for rank in (0, 1)]
    assert told[0] == told[1]
    assert told[0].startswith("1 of 6 dev utterances cannot be used")


# --- evaluations --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """With all that an evaluation may hold."""
    texts = [("the cat sat", "the cat"), ("on mats", "on the mats"), ("all right", "all right")]
    utterances = tuple(
        EvaluatedUtterance(
            f"u{k}", None if k == 1 else f"s{k}", 1.5 + k, f"{k}.wav",
            score_utterance(f"u{k}", reference, hypothesis), {"age": f"{20 + k}"}, 12.5 * k,
            tuple(Word(w, 0.1 * n, 0.1 * n + 0.05, 0.5) for n, w in
                  enumerate(hypothesis.split())),
        )
        for k, (reference, hypothesis) in enumerate(texts)
    )  # fmt: skip
    left_out = Finding(
        Kind.UNREADABLE_AUDIO, "9.wav: empty file", "u9", audio_filepath=Path("9.wav")
    )
    return Evaluation(
        "Title", ModelDescription("model", 123, {"step": 3, "dev_wer": 0.25}), "m.jsonl", 0.25,
        utterances, {"decoder": "Greedy", "beam": 8, "on": True}, ("lower case",),
        ("speaker", "snr", "age"), (left_out,),
    )  # fmt: skip


READ = ("title", "model", "manifest", "settings", "real_time_factor", "text_rules", "slice_by",
        "utterances", "left_out", "format", "version")  # fmt: skip


@pytest.mark.slow
def test_every_value_of_an_evaluation_may_be_forged(
    evaluation: Evaluation, tmp_path: Path, survived: Survived
) -> None:
    path = tmp_path / "evaluation.json"
    content = json.loads(evaluation_to_json(evaluation))
    read = {name: content[name] for name in READ}
    tried = good = 0
    for what, forged in forgeries(read):
        path.write_text(json.dumps(content | forged))
        if what.endswith("left out"):
            path.write_text(json.dumps({k: v for k, v in (content | forged).items() if
                                        k in forged or k not in READ}))  # fmt: skip
        tried += 1
        fine = is_one_line(lambda: read_evaluation(path)) or is_rendered(read_evaluation(path))
        assert fine, what
        good += fine
    assert tried > 500
    survived("forged evaluations", good, tried)


def is_rendered(evaluation: Evaluation) -> bool:
    """Whether page, terminal and JSON are made, without an escape sequence of its texts."""
    console = Console(file=io.StringIO(), width=100)
    for by in evaluation.slice_by:
        console.print(slice_table(evaluation, by))
    console.print(summary(evaluation), worst_utterances(evaluation))
    page = render_evaluation(evaluation)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    return "\x1b" not in shown + page and bool(evaluation_to_json(evaluation))


def test_every_value_of_a_calibration_may_be_forged(tmp_path: Path, survived: Survived) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, Calibration(0.5, 0.1))
    content = json.loads(path.read_text())
    tried = good = 0
    for what, forged in forgeries(content):
        path.write_text(json.dumps(forged))
        tried += 1
        fine = is_one_line(lambda: read_calibration(path)) or all(
            0 <= read_calibration(path).apply(each) <= 1 for each in (0, 0.3, 0.5, 1)
        )
        assert fine, what
        good += fine
    survived("forged calibrations", good, tried)
