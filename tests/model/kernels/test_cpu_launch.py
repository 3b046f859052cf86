"""Tasks on torch's threads, and on a pool of our own where these cannot be had."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from asr.model.kernels import cpu_launch
from asr.model.kernels.cpu_launch import run_tasks


@pytest.fixture(params=["torch's", "own pool", "one"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    before = torch.get_num_threads()
    torch.set_num_threads(1 if request.param == "one" else 2)
    if request.param == "own pool":
        monkeypatch.setattr(cpu_launch, "_openmp", lambda: None)
    elif request.param == "torch's" and cpu_launch._openmp() is None:
        pytest.skip("this torch has no libgomp beside it")
    yield request.param
    torch.set_num_threads(before)


def test_every_task_is_run_once_and_two_at_a_time(kind: str) -> None:
    meeting = threading.Barrier(1 if kind == "one" else 2, timeout=20)
    done: list[int] = []

    def work(number: int) -> None:
        meeting.wait()  # nobody passes alone
        done.append(number)

    run_tasks(partial(work, number) for number in range(6))
    assert sorted(done) == list(range(6))


def test_what_a_task_raises_reaches_the_caller(kind: str) -> None:
    def work(number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt(number)

    with pytest.raises(KeyboardInterrupt, match="1"):
        run_tasks(partial(work, number) for number in range(2))
    run_tasks([partial(work, 0)])  # and the threads are there for the next


def test_torch_still_multiplies_on_its_threads(kind: str) -> None:
    a = torch.randn(300, 300, dtype=torch.float64)
    products: list[torch.Tensor] = []
    run_tasks(2 * [lambda: products.append(a @ a)])
    assert all(torch.allclose(product, a @ a) for product in products)
