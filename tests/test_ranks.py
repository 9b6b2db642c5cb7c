"""Processes that share a fit: alone, and two of them over gloo."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import distributed as dist

import pyrolatent as pyl
from pyrolatent import checkpoint
from pyrolatent.errors import StoreError
from pyrolatent.infer.importance import ImportanceSampling
from pyrolatent.infer.laplace import Laplace
from pyrolatent.ranks import Ranks, current_ranks, process_group
from pyrolatent.result import Fit
from tests.test_resume import HEIGHTS, check_same, mean_of, quietly, regression, rows

ROOT = Path(__file__).parent.parent
SIZE = 2
WHOLE = {
    "float64": torch.arange(12, dtype=torch.float64).reshape(4, 3) / 7,
    "int64": torch.tensor([2**62, -5, 3, 0]),
    "bool": torch.tensor([[True, False], [False, False], [True, True], [False, True]]),
    "empty": torch.zeros(4, 0),
}
METHODS = {"Laplace": Laplace(200), "importance": ImportanceSampling(1_000)}


# One process


def test_alone_everything_is_what_it_was() -> None:
    ranks = current_ranks()
    assert ranks == Ranks(0, 1)
    assert ranks.first and ranks.alone
    for whole in WHOLE.values():
        assert ranks.share(whole) is whole
        assert ranks.gather(whole) is whole
        assert ranks.mean(whole) is whole
    assert ranks.agreed(-3) == -3
    ranks.check_share("chains", 7)


def test_a_group_of_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `torchrun --nproc-per-node=1` starts it, or a shell that knows nothing of it."""
    for size in ("1", None):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if size is not None:
            monkeypatch.setenv("WORLD_SIZE", size)
        with process_group() as ranks:
            assert ranks == Ranks()
            assert not dist.is_initialized()


def test_shares_lie_in_the_order_of_ranks() -> None:
    """`share` needs no process group: it only cuts."""
    parts = [Ranks(rank, 3).share(torch.arange(6)) for rank in range(3)]
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    columns = [Ranks(rank, 3).share(WHOLE["float64"], dim=1) for rank in range(3)]
    assert torch.equal(torch.cat(columns, 1), WHOLE["float64"])


def test_a_share_has_memory_of_its_own() -> None:
    whole = torch.arange(6)
    Ranks(1, 2).share(whole).zero_()
    assert whole.tolist() == [0, 1, 2, 3, 4, 5]


def test_unequal_shares_are_refused() -> None:
    Ranks(0, 3).check_share("chains", 9)
    expected = r"^chains cannot be shared out equally: 10 over 3 processes\. choose a multiple of 3\.$"
    with pytest.raises(pyl.ArgumentError, match=expected):
        Ranks(0, 3).check_share("chains", 10)


# Two processes


def fitted(name: str, **options: Any) -> Fit:
    return quietly(pyl.fit, model=regression, data=rows(), method=METHODS[name], seed=3, **options)


def of_one_process(out: str) -> None:
    """What each process does, and what it found."""
    folder = Path(out)
    with process_group() as ranks:
        tensors: dict[str, Tensor] = {}
        for name, whole in WHOLE.items():
            part = ranks.share(whole)
            tensors |= {f"share of {name}": part, f"gathered {name}": ranks.gather(part)}
        tensors["by columns"] = ranks.gather(ranks.share(WHOLE["bool"].mT, dim=1))
        value = torch.tensor([1.0, 4.0], dtype=torch.float64) * (1 + ranks.rank)
        tensors |= {"mean": ranks.mean(value), "value": value}
        tensors["mean of int64"] = ranks.mean(torch.tensor([2, 4]) * (1 + ranks.rank))
        told = {"ranks": [ranks.rank, ranks.size], "agreed": ranks.agreed(10**12 + ranks.rank)}
        with process_group() as again:
            told["again"] = [again.rank, again.size]
        told |= fits(ranks, folder)
    told["over"] = not dist.is_initialized()
    save_file(tensors, folder / f"{ranks.rank}.safetensors")
    (folder / f"{ranks.rank}.json").write_text(json.dumps(told))


def fits(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Fit in both processes, of which the second comes late to a folder that the first has begun."""
    whole, files = checkpoint.write_bytes, []
    checkpoint.write_bytes = lambda path, content: (files.append(path.name), whole(path, content))[1]
    time.sleep(ranks.rank)
    for name in METHODS:
        pyl.save(fitted(name, checkpoint=folder / name), folder / f"{name} {ranks.rank}")
    seeds = [quietly(pyl.fit, model=mean_of, data={"y": HEIGHTS}, method=Laplace(100)).seed]
    return {"files": files, "seeds": seeds}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have found."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(SIZE), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", f"import tests.test_ranks as t; t.of_one_process({str(folder)!r})"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=os.environ | group | {"RANK": str(n), "LOCAL_RANK": str(n)})
        for n in range(SIZE)
    ]
    assert [process.wait() for process in processes] == [0] * SIZE
    return folder


def tensors_of(out: Path) -> list[dict[str, Tensor]]:
    return [load_file(out / f"{rank}.safetensors") for rank in range(SIZE)]


def told_by(out: Path) -> list[dict[str, Any]]:
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(SIZE)]


@pytest.mark.parametrize("name", WHOLE)
def test_shares_are_gathered_in_order(name: str, out: Path) -> None:
    whole = WHOLE[name]
    for rank, found in enumerate(tensors_of(out)):
        assert torch.equal(found[f"share of {name}"], whole[2 * rank : 2 * rank + 2])
        assert torch.equal(found[f"gathered {name}"], whole)
        assert found[f"gathered {name}"].dtype == whole.dtype


def test_parts_that_do_not_lie_by_rows_are_gathered_too(out: Path) -> None:
    columns = WHOLE["bool"].mT
    for found in tensors_of(out):
        assert torch.equal(found["by columns"], torch.cat([columns[:, :2], columns[:, 2:]]))


def test_the_mean_is_that_of_all_and_leaves_the_value(out: Path) -> None:
    for rank, found in enumerate(tensors_of(out)):
        assert found["mean"].tolist() == [1.5, 6.0]
        assert found["value"].tolist() == [1.0 + rank, 4.0 * (1 + rank)]
        assert found["mean of int64"].tolist() == [3.0, 6.0]


def test_all_agree_on_what_the_first_has(out: Path) -> None:
    told = told_by(out)
    assert [found["ranks"] for found in told] == [found["again"] for found in told] == [[0, 2], [1, 2]]
    assert [found["agreed"] for found in told] == [10**12] * 2
    assert told[0]["seeds"] == told[1]["seeds"]
    assert all(found["over"] for found in told)


@pytest.mark.parametrize("name", METHODS)
def test_fits_of_two_processes_are_those_of_one(name: str, out: Path) -> None:
    expected = fitted(name)
    for rank in range(SIZE):
        check_same(pyl.load(out / f"{name} {rank}", model=regression), expected)


def test_a_run_is_gone_on_with_by_as_many_processes(out: Path) -> None:
    with pytest.raises(StoreError, match="another fit: processes was 2, is 1"):
        fitted("importance", resume=out / "importance")


def test_only_the_first_process_writes(out: Path) -> None:
    first, second = told_by(out)
    assert len(first["files"]) > 4
    assert second["files"] == []
