"""The Triton layer beside the reference: in the interpreter on a CPU, as it is on a GPU.

The interpreter takes seconds for what a GPU does in microseconds, so sizes are small: but more
utterances than a tile has, more units than a tile has, and a product in more than one part.
"""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.model import lstm as lstm_module
from asr.model.kernels import triton_launch
from asr.model.lstm import LSTM
from asr.model.lstm_cell import CELLS, Masks, Weights
from tests.model.layers import assert_equal, forward_and_gradients, random_state, twin_of

pytest.importorskip("triton")
HERE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = [3, 1, 0, 2]
ONE_LAUNCH = ["lstm", "cell_recurrent", "peephole"]  # for all steps, that is
OPTIONS: list[dict[str, Any]] = [
    {},
    {"coupled_gates": True, "bias": False},
    {"recurrent_dropout": 0.3, "zoneout": 0.2},
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(8)


def layer_of(cell: str, hidden: int = 5, **options: Any) -> LSTM:
    proj_size = max(1, hidden // 2) if cell == "projection" else 0
    layer = LSTM(
        3, hidden, cell=cell, proj_size=proj_size, batch_first=True, bidirectional=True,
        backend="reference", **options,
    ).double()  # fmt: skip
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def found_by(
    layer: LSTM, x: Tensor, state: tuple[Tensor, Tensor], lengths: Tensor
) -> dict[str, Tensor]:
    """Values and gradients, the same masks drawn whatever the backend and the device."""
    torch.manual_seed(4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LSTM, "draw_masks", _draw_on_a_cpu)
        return forward_and_gradients(layer, x, state, lengths=lengths)


def _draw_on_a_cpu(self: LSTM, x: Tensor, _draw: Any = LSTM.draw_masks) -> Masks:
    drawn = _draw(self, torch.empty_like(x, device="cpu"))
    return Masks(*(None if part is None else part.to(x.device) for part in drawn))


def assert_alike(
    reference: LSTM, device: str, lengths: list[int] = LENGTHS, tolerance: float = 1e-10
) -> None:
    """The reference and this backend, the padding full of NaN."""
    triton = twin_of(reference, "fused_triton").to(device)
    x = torch.randn(len(lengths), 4, 3, dtype=torch.float64).to(reference.weight_ih_l0.dtype)
    state = random_state(reference, len(lengths))
    state = (state[0].to(x), state[1].to(x))
    ends = torch.tensor(lengths)
    for row, length in enumerate(lengths):
        x[row, length:] = math.nan
    expected = found_by(reference, x, state, ends)
    on_device = (state[0].to(device), state[1].to(device))
    found = found_by(triton, x.to(device), on_device, ends.to(device))
    for name, value in expected.items():
        assert_equal(found[name].cpu(), value, tolerance)


@pytest.fixture
def _step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch for each step, where one for all would serve."""
    monkeypatch.setattr(triton_launch, "loop_kind", lambda *_, **__: "a test asks for it")


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "coupled", "noisy"])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_the_reference(cell: str, options: dict[str, Any]) -> None:
    assert_alike(layer_of(cell, **options), HERE)


@pytest.mark.usefixtures("_step_by_step")
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "coupled", "noisy"])
@pytest.mark.parametrize("cell", ONE_LAUNCH)
def test_step_by_step_equals_the_reference(cell: str, options: dict[str, Any]) -> None:
    assert_alike(layer_of(cell, **options), HERE)


@pytest.mark.usefixtures("_step_by_step")
@pytest.mark.parametrize("cell", ["lstm", pytest.param("layer_norm", marks=pytest.mark.slow)])
def test_more_than_one_tile_of_everything(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_launch, "DEPTH", 16)
    kind = triton_launch.CellKind._replace
    monkeypatch.setattr(
        triton_launch.CellKind, "_replace", lambda self, **new: kind(self, **{"BLOCK_K": 16} | new)
    )
    assert_alike(layer_of(cell, hidden=18), HERE, [4, 2, 1] + 14 * [1])


def test_without_gradients_nothing_is_kept_and_the_output_is_the_same() -> None:
    for cell in CELLS:
        layer = twin_of(layer_of(cell), "fused_triton").to(HERE)
        x = torch.randn(3, 4, 3, dtype=torch.float64, device=HERE)
        lengths = torch.tensor([4, 2, 1], device=HERE)
        expected = layer(x, lengths=lengths)[0]
        with torch.no_grad():
            output = layer(x, lengths=lengths)[0]
        assert output.grad_fn is None
        assert torch.equal(output, expected)


def test_a_second_backward_pass_over_the_same_graph() -> None:
    layer = twin_of(layer_of("peephole"), "fused_triton").to(HERE)
    output, _ = layer(torch.randn(2, 2, 3, dtype=torch.float64, device=HERE))
    first = torch.autograd.grad(output.square().sum(), layer.weight_hh_l0, retain_graph=True)
    second = torch.autograd.grad(output.square().sum(), layer.weight_hh_l0)
    assert torch.equal(first[0], second[0])


# The interpreter multiplies the bits of bfloat16 as if they were integers.
@pytest.mark.parametrize("dtype", [torch.float16] + [torch.bfloat16] * (HERE == "cuda"))
def test_half_precision_weights_have_sums_in_float32(dtype: torch.dtype) -> None:
    exact = layer_of("lstm").float()
    half = twin_of(exact, "fused_triton").to(HERE, dtype)
    exact.load_state_dict({name: value.float() for name, value in half.cpu().state_dict().items()})
    x = torch.randn(2, 3, 3).to(dtype)
    output, (h_n, c_n) = half.to(HERE)(x.to(HERE))
    assert output.dtype == h_n.dtype == c_n.dtype == dtype
    expected = exact(x.float())[0]
    torch.testing.assert_close(output.float().cpu(), expected, atol=0.03, rtol=0)
    output.sum().backward()
    expected.sum().backward()
    for found, wanted in zip(half.parameters(), exact.parameters(), strict=True):
        assert found.grad.dtype == dtype
        torch.testing.assert_close(found.grad.float().cpu(), wanted.grad, atol=0.2, rtol=0.05)


@pytest.mark.parametrize("cell", ["lstm", "projection"])
def test_torch_knows_its_shapes_and_gradients(cell: str) -> None:
    layer = layer_of(cell)
    empty = torch.empty(0, dtype=torch.float64)
    directions = zip(layer.weights("l0"), layer.weights("l0_reverse"), strict=True)
    by_name = dict(zip(Weights._fields, directions, strict=True))
    parameters = [
        empty if by_name[name][0] is None else torch.stack(by_name[name])
        for name in triton_launch.Parameters._fields
    ]
    width = layer.recurrent_size
    sizes = [(2, 3, 2, 20), (2, 2, width), (2, 2, 5)]
    x, h_0, c_0 = (torch.rand(size, dtype=torch.float64, device=HERE) for size in sizes)
    *parameters, x, h_0, c_0 = (
        tensor.detach().to(HERE).requires_grad_() for tensor in (*parameters, x, h_0, c_0)
    )
    lengths = torch.tensor([3, 1], device=HERE)
    arguments = (x, lengths, parameters, [empty.to(HERE)] * 3, h_0, c_0, False, True, True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    operator = torch.ops.asr.lstm_fused_triton.default
    torch.library.opcheck(operator, arguments, test_utils=tests)


def test_refused_on_a_cpu_and_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LSTM(3, 5, backend="fused_triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="fused_triton: on cpu, expected a CUDA device"):
        layer(torch.zeros(1, 1, 3))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(lstm_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="the package triton is not installed"):
        layer(torch.zeros(1, 1, 3))


COMPILE = """
import torch, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from asr.model.kernels import triton_backward, triton_forward, triton_launch

plain = dict(
    D=2, H=320, R=320, G=4, READS_C=False, PEEPHOLE=False, NORM=False, PROJECTED=False,
    MASKED=True, ZONED=True, KEEP=True, EPSILON=1e-5, FLOAT=tl.float32, WEIGHT=tl.float32,
    PRECISION="ieee",
)
kinds = [
    {}, {"WEIGHT": tl.bfloat16, "G": 3}, {"READS_C": True, "PRECISION": "tf32"},
    {"PEEPHOLE": True}, {"NORM": True}, {"PROJECTED": True, "R": 160},
    {"WEIGHT": tl.bfloat16, "H": 512, "R": 512}, {"WEIGHT": tl.bfloat16, "H": 1024, "R": 1024},
]
triton_launch._chip = lambda device: (132, 232448)  # an H100's


def compile(kernel, signature, kind, options):
    signature = dict(zip(kernel.arg_names, signature, strict=False))
    source = triton.compiler.ASTSource(kernel, signature=signature, constexprs={"KIND": kind})
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(kernel.fn.__name__, len(binary.asm["cubin"]))
    assert binary.metadata.shared <= 232448, (kind, binary.metadata.shared)


for changes in kinds:
    kind = triton_launch.CellKind(**plain | changes)
    for backward in (False, True):
        kernels = triton_backward if backward else triton_forward
        for name, _, own in triton_launch.step_launches(kind, 16, backward):
            compile(getattr(kernels, name), ("*i64", "i32"), own, None)
        for batch in (16, 64):
            own = triton_launch.loop_kind(kind, batch, torch.device("cuda"), backward)
            if not isinstance(own, str):
                loop = "loop_backward" if backward else "loop_forward"
                compile(getattr(kernels, loop), ("*i64",), own, triton_launch.OPTIONS)
"""


def test_every_kernel_compiles_for_a_gpu() -> None:
    """The interpreter takes more than the compiler does; this needs no GPU, only its compiler."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    compiled = [line.split()[0] for line in done.stdout.splitlines()]
    assert compiled.count("cell_forward") == compiled.count("cell_backward") == 8
    assert compiled.count("loop_forward") == compiled.count("loop_backward") == 8


@pytest.mark.cuda
@pytest.mark.parametrize("way", ["all steps", "each step"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("sizes", [(16, 40, 320), (64, 30, 512), (3, 50, 144)])
def test_half_precision_on_many_programs_at_once(
    cell: str, sizes: tuple[int, int, int], way: str, request: pytest.FixtureRequest
) -> None:
    """Beside float64: as near as torch's own operations in bfloat16 are, or nearly so.

    And the same bits each time, so nobody is early.
    """
    if way == "each step":
        request.getfixturevalue("_step_by_step")
    elif cell not in ONE_LAUNCH:
        pytest.skip("has a launch for each step alone")
    batch, frames, hidden = sizes
    proj_size = hidden // 2 if cell == "projection" else 0
    layer = LSTM(
        48, hidden, cell=cell, proj_size=proj_size, batch_first=True, bidirectional=True,
        backend="fused_triton",
    ).cuda()  # fmt: skip
    half = twin_of(layer, "reference").cuda()
    exact = twin_of(layer, "reference").cuda().double()
    x = torch.randn(batch, frames, 48, device="cuda")
    lengths = torch.linspace(frames, 1, batch).long().cuda()
    h_0, c_0 = (part.cuda() for part in random_state(layer, batch))
    expected = forward_and_gradients(exact, x.double(), (h_0, c_0), lengths=lengths)
    state = h_0.float(), c_0.float()
    with torch.autocast("cuda", torch.bfloat16):
        found = [forward_and_gradients(layer, x, state, lengths=lengths) for _ in range(5)]
        by_torch = forward_and_gradients(half, x, state, lengths=lengths)
    for name, value in expected.items():
        size = value.norm().clamp(min=1e-30)
        error, usual = ((f[name].double() - value).norm() / size for f in (found[0], by_torch))
        assert error < 0.02 + 2 * usual, (name, error, usual)
        for again in found[1:]:
            assert torch.equal(again[name], found[0][name]), name


@pytest.mark.cuda
@pytest.mark.parametrize("way", ["all steps", "each step"])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "coupled", "noisy"])
@pytest.mark.parametrize("cell", CELLS)
def test_batches_of_many_shapes(
    cell: str, options: dict[str, Any], way: str, request: pytest.FixtureRequest
) -> None:
    if way == "each step":
        request.getfixturevalue("_step_by_step")
    layer = layer_of(cell, hidden=40, **options)
    for lengths in ([4, 3, 1], [1], [2, 2, 2, 2, 4, 0], [4] * 20, [3, 4]):
        assert_alike(layer, "cuda", lengths)


@pytest.mark.cuda
def test_auto_takes_it_in_half_precision() -> None:
    x = torch.randn(2, 3, 3, device="cuda")
    full, mixed, half = (LSTM(3, 5).cuda() for _ in range(3))
    full(x)
    with torch.autocast("cuda", torch.bfloat16):
        mixed(x)
    half.half()(x.half())
    assert [layer.backend for layer in (full, mixed, half)] == [
        "native", "fused_triton", "fused_triton",
    ]  # fmt: skip
