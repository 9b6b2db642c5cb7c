"""Nested values as JSON and tensors, and back: equal in every bit, dtype, class and place in memory."""

import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from pyrolatent.snapshots import flatten, rebuild

CPU = torch.device("cpu")


class Point(NamedTuple):
    position: Tensor
    height: float


@dataclass(frozen=True)
class Run:
    points: list[Point]
    count: int = 0
    best: Point | None = None


def through_files(value: Any) -> Any:
    """The value after it was written and read, as a checkpoint does."""
    tensors: dict[str, Tensor] = {}
    state = json.dumps(flatten(value, tensors))
    return rebuild(json.loads(state), load(save(tensors)), (Point, Run), CPU)


NAN = torch.tensor([1.0, math.nan, -math.inf, -0.0, 5e-324], dtype=torch.float64)
TENSORS = {
    "float64": NAN,
    "float32": NAN.float(),
    "int64": torch.tensor([2**62, -1]),
    "uint8": torch.arange(256, dtype=torch.uint8),
    "bool": torch.tensor([[True], [False]]),
    "one number": torch.tensor(0.1, dtype=torch.float64),
    "none at all": torch.zeros(0, dtype=torch.float64),
    "no columns": torch.zeros(3, 0),
    "a generator's state": torch.Generator().manual_seed(3).get_state(),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_keep_every_bit(name: str) -> None:
    value = TENSORS[name]
    back = through_files(value)
    assert (back.dtype, back.shape) == (value.dtype, value.shape)
    bits = [x.contiguous().reshape(-1).view(torch.uint8) for x in (back, value)]
    assert torch.equal(*bits)


def test_a_generator_goes_on() -> None:
    source = torch.Generator().manual_seed(3)
    torch.randn(7, generator=source)
    state = through_files(source.get_state())
    expected = torch.randn(5, generator=source)
    assert torch.equal(torch.randn(5, generator=torch.Generator().set_state(state)), expected)


def test_parts_of_one_tensor_come_back_apart() -> None:
    whole = torch.arange(6.0)
    first, second, both = through_files([whole[:3], whole[3:], whole])
    first.zero_()
    assert both.tolist() == [0, 1, 2, 3, 4, 5]
    assert second.tolist() == [3, 4, 5]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_dimensions_lie_in_memory_as_they_did(order: tuple[int, ...]) -> None:
    value = torch.randn(2, 3, 4).permute(order)
    back = through_files(value)
    assert torch.equal(back, value)
    assert back.stride() == value.stride()


def test_products_are_those_of_the_original() -> None:
    """A Cholesky factor lies by columns; laid by rows, its products differ in their last bits."""
    root = torch.randn(50, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    factor = torch.linalg.cholesky(root @ root.mT + torch.eye(50, dtype=torch.float64))
    noise = torch.randn(64, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert factor.stride() == (1, 50)
    assert torch.equal(noise @ through_files(factor).mT, noise @ factor.mT)
    assert torch.equal(through_files(factor) @ noise[0], factor @ noise[0])


def test_plain_values_keep_value_and_type() -> None:
    value = {
        "numbers": [1, 1.0, -0.0, 0.1 + 0.2, 10**30, math.inf, -math.inf],
        "truth": (True, False, None),
        1: {"2": {}, True: []},
        (1, "a"): "text with \u2028 and \0",
        "tensor": {"tensor": "0", "dict": []},
    }
    back = through_files(value)
    assert repr(back) == repr(value)  # which tells 1 from 1.0 and True, and -0.0 from 0.0
    assert list(back) == list(value)
    assert math.isnan(through_files(math.nan))


def test_classes_within_classes() -> None:
    run = Run([Point(NAN, 0.5), Point(NAN[:0], math.inf)], 3, Point(torch.tensor(1.0), -1.0))
    back = through_files({"run": run})["run"]
    assert type(back) is Run
    assert [type(point) for point in back.points] == [Point, Point]
    assert torch.equal(back.points[0].position[2:], NAN[2:])
    assert (back.count, back.points[1].height, back.best.height) == (3, math.inf, -1.0)


def test_gradients_and_views_are_left_behind() -> None:
    value = torch.ones(3, requires_grad=True)
    assert not through_files(value).requires_grad
    assert torch.equal(through_files(torch.ones(1).expand(3)), torch.ones(3))


@pytest.mark.parametrize("value", [{1, 2}, object(), [b"bytes"], {"a": print}])
def test_what_has_no_plain_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="has no plain form"):
        flatten(value, {})


def test_classes_that_the_reader_does_not_expect_are_not_made() -> None:
    state = flatten(Point(NAN, 1.0), tensors := {})
    with pytest.raises(KeyError, match="Point"):
        rebuild(state, tensors, (Run,), CPU)


def test_tensors_return_to_their_device() -> None:
    """What was on the CPU stays there, as states of generators do; the rest goes where the run is."""
    tensors: dict[str, Tensor] = {}
    state = flatten([torch.ones(2), torch.ones(2)], tensors)
    state["list"][1]["on"] = "cuda"
    here, there = rebuild(state, tensors, (), torch.device("meta"))
    assert (here.device.type, there.device.type) == ("cpu", "meta")
