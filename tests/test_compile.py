"""Graphs are cleaned up bit for bit, compiled where numbers alone say so, and their code is kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx

from pyrolatent.capture import compile, inductor
from pyrolatent.capture.compile import Graph, calls, capture, clean_up, has_compiler, worth_compiling
from pyrolatent.capture.inductor import CACHE_VARIABLE, agree, cache_folder, options, replayed

X = torch.linspace(-1.0, 2.0, 6, dtype=torch.float64).reshape(2, 3)


def sines(times: int, x: Tensor = X) -> Graph:
    """Return x -> sin(sin(... x)), which no clean-up can shorten."""

    def function(x: Tensor) -> Tensor:
        for _ in range(times):
            x = x.sin()
        return x

    return capture(function, x)


def squared_distance(centre: Tensor) -> Graph:
    return capture(lambda x: ((x - centre) ** 2).sum(-1), X)


def test_size_of_a_graph() -> None:
    """Four results of six doubles."""
    graph = sines(4)
    assert (graph.num_ops, graph.num_bytes) == (4, 4 * 6 * 8)


@pytest.mark.parametrize("times", [1, 7])
def test_compiling_is_decided_from_numbers_alone(times: int) -> None:
    graph = sines(times)
    saved = graph.num_ops * compile.SECONDS_PER_OP + graph.num_bytes * compile.SECONDS_PER_BYTE
    cost = compile.SECONDS_TO_COMPILE + graph.num_ops * compile.SECONDS_TO_COMPILE_OP
    assert not worth_compiling(graph, int(0.99 * cost / saved))
    assert worth_compiling(graph, int(1.01 * cost / saved)) is has_compiler()


def test_large_results_make_compiling_pay_earlier() -> None:
    few = 500_000  # evaluations; saves 1 s of calls, and 40 s of memory where results have 2 MB
    assert not worth_compiling(sines(1), few)
    assert worth_compiling(sines(1, torch.zeros(250_000, dtype=torch.float64)), few) is has_compiler()


def test_no_graph_of_many_operations_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile, "MAX_COMPILED_OPS", 6)
    assert worth_compiling(sines(6), 10**9) is has_compiler()
    assert not worth_compiling(sines(7), 10**9)


def test_equal_constants_are_one() -> None:
    """As in a Python loop over rows: each turn makes its own tensor of the same numbers."""

    def function(x: Tensor) -> Tensor:
        return torch.stack([(x + torch.tensor([1.0, 2.0, 3.0])).exp() for _ in range(5)])

    graph = capture(function, X)
    assert [node.target for node in calls(graph.module)] == [
        torch.ops.aten.add.Tensor, torch.ops.aten.exp.default, torch.ops.aten.stack.default,
    ]  # fmt: skip
    assert torch.equal(graph(X), function(X))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.tensor([2.0]), torch.tensor([2.0], dtype=torch.float64)),
        (torch.tensor([2], dtype=torch.int32), torch.tensor([2], dtype=torch.int64)),
        (torch.full((3, 3), 2.0), torch.full((1, 3), 2.0)),
        (torch.full((2, 3), 2.0), torch.full((3, 2), 2.0).mT),
    ],
    ids=["sign of zero", "precision", "kind", "shape", "strides"],
)
def test_constants_that_differ_in_anything_stay_apart(left: Tensor, right: Tensor) -> None:
    graph = make_fx(lambda x: (x * left, x * right))(torch.ones(3))
    clean_up(graph)
    assert sum(node.op == "get_attr" for node in graph.graph.nodes) == 2


def test_options_follow_the_device() -> None:
    assert options("cuda")["triton.cudagraphs"] is True
    assert "triton.cudagraphs" not in options("cpu")


def test_wrong_code_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor, "inductor_code", lambda module, _: lambda x: 1.001 * module(x))
    graph = sines(2).compile()
    assert all(torch.equal(graph(x), x.sin().sin()) for x in (X, X + 1.0))
    assert not graph.ran_compiled


def test_rounding_is_no_reason_to_refuse() -> None:
    """Entries that cancel to nothing have no digits of their own; infinities and NaN must stay in place."""
    large = torch.tensor([1e3, torch.inf, torch.nan, 0.0])
    assert agree([large], [torch.tensor([1e3, torch.inf, torch.nan, 1e-3])])
    assert not agree([large], [torch.tensor([1e3, 0.0, torch.nan, 0.0])])
    assert not agree([large], [torch.tensor([1e3, torch.inf, torch.nan, 1.0])])


def test_results_of_a_replay_outlive_the_next() -> None:
    """A CUDA graph writes its results to the same memory each time."""
    memory = torch.zeros(3)
    run = replayed(lambda x: (memory.copy_(x), [memory]))
    first, second = run(torch.ones(3)), run(torch.zeros(3))
    assert torch.equal(first[0], torch.ones(3)) and torch.equal(first[1][0], torch.ones(3))
    assert torch.equal(second[0], torch.zeros(3))


@pytest.mark.parametrize("named", [True, False])
def test_the_environment_is_put_back(named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(inductor, "user_cache_path", lambda *_, **__: tmp_path / "ours")
    if named:
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "theirs"))
    before = os.environ.get(CACHE_VARIABLE)
    with pytest.raises(KeyError), cache_folder():
        expected = tmp_path / "theirs" if named else tmp_path / "ours" / "inductor"
        assert os.environ[CACHE_VARIABLE] == str(expected)
        raise KeyError
    assert os.environ.get(CACHE_VARIABLE) == before


@pytest.mark.parametrize("unusable", ["file/inside", "with a space"])
def test_a_folder_of_no_use_is_passed_over(
    unusable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / unusable))
    with cache_folder():
        assert CACHE_VARIABLE not in os.environ
    assert os.environ[CACHE_VARIABLE] == str(tmp_path / unusable)


SECOND_PROCESS = """
import torch
from torch._dynamo.utils import counters
from tests.test_compile import X, squared_distance
value = squared_distance(torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)).compile()(X)
print(counters["inductor"]["fxgraph_cache_hit"], value.tolist())
"""


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler")
def test_code_is_kept_for_later_graphs_and_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept code must serve other constants of the same shape with their own values."""
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(inductor, "user_cache_path", lambda *_, **__: tmp_path)
    centres = torch.tensor([[1.0, 0.0, -1.0], [5.0, 5.0, 5.0]], dtype=torch.float64)
    compiled = squared_distance(centres[0].clone()).compile()
    expected = [((X - centre) ** 2).sum(-1) for centre in centres]
    torch.testing.assert_close(compiled(X), expected[0])
    torch.testing.assert_close(squared_distance(centres[1].clone()).compile()(X), expected[1])
    assert CACHE_VARIABLE not in os.environ
    with pytest.raises(ValueError, match="called at others"):
        compiled(X[:1])
    environment = os.environ | {CACHE_VARIABLE: str(tmp_path / "inductor")}
    command = [sys.executable, "-c", SECOND_PROCESS]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert second.stdout.strip() == f"1 {compiled(X).tolist()}"
    counters.clear()


def test_constants_of_stride_zero_are_compared() -> None:
    """A tensor of one entry that was expanded counts as contiguous, and cannot be seen as bytes."""
    wide = torch.ones(1, dtype=torch.float64).as_strided((1, 1), (0, 0))
    graph = capture(lambda x: x * wide + x * wide.clone(), X)
    assert torch.equal(graph(X), 2 * X)
