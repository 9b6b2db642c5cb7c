"""Runs that are killed, interrupted and resumed, and folders that cannot be resumed.

Every kill is a SIGKILL of a real process, after so many files or so many runs of its model, or at a random
moment.  What another process makes of the checkpoint has to equal the uninterrupted run bit for bit.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyrolatent as pyl
from pyrolatent import checkpoint, folders
from pyrolatent.checkpoint import PIECE, STATE
from pyrolatent.infer import modes
from pyrolatent.infer.importance import ImportanceSampling
from pyrolatent.infer.laplace import Laplace
from pyrolatent.infer.stages import Stages
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.result import Fit

ROOT = Path(__file__).parent.parent
SEED = 3
last_run = inf  # of `mortal`, in the process that is to die
runs = 0


def regression(x: Tensor, y: Tensor) -> None:
    scale = pyro.sample("scale", dist.HalfNormal(2.0))
    weights = pyro.sample("weights", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(x @ weights, scale), obs=y)


def rows() -> dict[str, Any]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(40, 12, generator=source, dtype=torch.float64)
    return {"x": x, "y": x.sum(1) + torch.randn(40, generator=source, dtype=torch.float64)}


def mortal(y: Tensor) -> None:
    """Runs at one point after the other, since its course depends on a latent value, until it dies."""
    global runs
    runs += 1
    if runs > last_run:
        os.kill(os.getpid(), signal.SIGKILL)
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mean, 1.0 if mean > 0 else 1.5).expand(y.shape).to_event(1), obs=y)


HEIGHTS = torch.tensor([1.1, -0.4, 2.3, 0.8, 1.9], dtype=torch.float64)


def of_regression(method: Any) -> Callable[..., Fit]:
    return lambda **options: pyl.fit(regression, rows(), method, seed=SEED, **options)


CASES: dict[str, Callable[..., Fit]] = {
    "Laplace": of_regression(Laplace()),
    "importance": of_regression(ImportanceSampling(2_000)),
    "eager": lambda **options: pyl.fit(mortal, {"y": HEIGHTS}, ImportanceSampling(200), seed=SEED, **options),
}


def quietly(fitting: Callable[..., Fit], **options: Any) -> Fit:
    """Fit; what the draws are worth, and that the eager rung is slow, is of no concern here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)
        return fitting(**options)


@cache
def uninterrupted(case: str) -> Fit:
    return quietly(CASES[case])


def tensors(fit: Fit) -> dict[str, Tensor]:
    """All numbers of a fit."""
    assert fit.weights is not None
    weights = {"raw": fit.weights.raw, "smoothed": fit.weights.smoothed}
    found = {**fit.samples, **fit.sample_stats, **fit.state, **weights}
    return found | {f"ess of {name}": values["ess"] for name, values in fit.diagnostics.items()}


def check_same(fit: Fit, expected: Fit) -> None:
    ours, theirs = tensors(fit), tensors(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert fit.info["log_evidence"] == expected.info["log_evidence"]
    assert fit.warnings == expected.warnings


# Killed by SIGKILL


def victim(case: str, folder: str, files: float, model_runs: float) -> None:
    """Fit until so many files are written, and die amid the next one; or after so many runs of the model."""
    global last_run
    last_run, whole, written = model_runs, checkpoint.write_bytes, 0

    def put(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written > files:
            path.with_name(f".{path.name}.half").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        whole(path, content)

    checkpoint.write_bytes = put
    quietly(CASES[case], checkpoint=folder)


def child(source: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", f"import tests.test_resume as t; {source}"]
    return subprocess.Popen(command, cwd=ROOT)


VICTIMS = {  # case, files written (a piece and the state are two), runs of the model
    "Laplace amid its draws": ("Laplace", 15, inf),
    "importance sampling amid its moves": ("importance", 31, inf),
    "importance sampling amid its draws, with a piece too many": ("importance", 221, inf),
    "importance sampling of an eager model": ("eager", inf, 950),
}
AT_RANDOM = "importance"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs whose processes were killed; they run side by side, since importing takes long."""
    folders = {name: tmp_path_factory.mktemp("killed") / "run" for name in VICTIMS}
    processes = [
        child(
            f"t.victim({case!r}, {str(folders[name])!r}, {files!r}, {model_runs!r})".replace("inf", "t.inf")
        )
        for name, (case, files, model_runs) in VICTIMS.items()
    ]
    for process in processes:
        assert process.wait() == -signal.SIGKILL
    return folders


@pytest.mark.parametrize("name", VICTIMS)
def test_a_killed_run_goes_on_to_the_same_numbers(
    name: str, killed: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The climb is in the checkpoint: nothing climbs again."""
    expected = uninterrupted(VICTIMS[name][0])
    monkeypatch.setattr(modes, "lbfgs_ascent", None)
    fit = quietly(CASES[VICTIMS[name][0]], checkpoint=killed[name], resume=True)
    check_same(fit, expected)


def test_killed_at_a_random_moment_and_resumed_in_another_process(tmp_path: Path) -> None:
    folder, out = tmp_path / "run", tmp_path / "fit"
    whole = f"t.victim({AT_RANDOM!r}, {str(folder)!r}, t.inf, t.inf)"
    with child(whole) as process:
        while process.poll() is None and not (folder / STATE).exists():
            time.sleep(0.01)
        time.sleep(random.random())
        process.kill()
    fit = f"t.quietly(t.CASES[{AT_RANDOM!r}], checkpoint={str(folder)!r}, resume=True)"
    with child(f"t.pyl.save({fit}, {str(out)!r})") as process:
        assert process.wait() == 0
    check_same(pyl.load(out, model=regression), uninterrupted(AT_RANDOM))


# Interrupted by Ctrl-C


def interrupting(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    """Let Ctrl-C come after so many parts of the draws."""
    evaluate, done = Stages.shared, 0

    def shared(self: Stages, position: Tensor) -> Mapping[str, Tensor]:
        nonlocal done
        done += 1
        if done == parts + 1:
            signal.raise_signal(signal.SIGINT)
        return evaluate(self, position)

    monkeypatch.setattr(Stages, "shared", shared)


def test_ctrl_c_returns_what_was_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four parts of 64 draws, as the uninterrupted run made them, and the rest when it is resumed."""
    interrupting(monkeypatch, parts=4)
    fit = quietly(CASES["Laplace"], checkpoint=tmp_path / "run")
    assert re.search(r"Interrupted after 256 of 1000 draws.*Pass resume='.*run' to go on", fit.warnings[0])
    expected = uninterrupted("Laplace")
    assert fit.weights is not None and expected.weights is not None
    assert torch.equal(fit.weights.raw, expected.weights.raw[:256])
    assert torch.equal(fit.samples["scale"], expected.samples["scale"][:, :256])
    assert pyl.summary(fit).loc["scale", "mean"] == pytest.approx(float(fit.samples["scale"].mean()))
    check_same(CASES["Laplace"](resume=tmp_path / "run"), expected)


def test_ctrl_c_of_importance_sampling_weighs_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 130 pieces two are the climb and its mode, 96 three moves: six parts of 64 draws are left."""
    interrupting(monkeypatch, parts=96 + 6)
    fit = quietly(CASES["importance"])
    assert re.search("Interrupted after 384 of 2000 draws.*Fit again", fit.warnings[0])
    expected = uninterrupted("importance").weights
    assert fit.weights is not None and expected is not None
    assert torch.equal(fit.weights.raw, expected.raw[:384])
    assert 0 < fit.num_draws <= 384


def test_ctrl_c_too_early_for_a_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One part of 64 draws has no tail of weights, and a proposal that still moves gives none at all."""
    for case, parts in (("Laplace", 1), ("importance", 40)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupting(patch, parts)
            CASES[case](checkpoint=tmp_path / case)
        check_same(CASES[case](resume=tmp_path / case), uninterrupted(case))


# What is kept


def brief(**options: Any) -> Fit:
    given = {"model": mean_of, "data": {"y": HEIGHTS}, "method": Laplace(100), "seed": SEED, **options}
    return quietly(pyl.fit, **given)


def mean_of(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(mean, 1.0).expand(y.shape).to_event(1), obs=y)


def median_of(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Laplace(mean, 1.0).expand(y.shape).to_event(1), obs=y)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkpoint of a finished run."""
    brief(checkpoint=tmp_path / "run")
    return tmp_path / "run"


def test_checkpoints_change_nothing_and_leave_no_other_files(tmp_path: Path) -> None:
    fit = brief(checkpoint=tmp_path / "run")
    check_same(fit, brief())
    files = {file.name for file in (tmp_path / "run").iterdir()}
    assert files == {STATE, *(PIECE.format(n) for n in (1, 2, 3, 4))}  # climb, mode, 64 draws, 36 draws


def test_how_often_is_the_users_choice(tmp_path: Path) -> None:
    """An iteration is 64 draws: 1,000 draws in four parts of five of them, or in other parts."""
    fit = CASES["Laplace"](checkpoint=tmp_path / "run", checkpoint_every=5)
    assert len(list((tmp_path / "run").glob("piece_*"))) == 2 + 4
    check_same(fit, uninterrupted("Laplace"))
    state = checkpoint.opened(tmp_path / "run" / STATE)[0]
    again = checkpoint.Checkpoint(tmp_path / "run", identity=state["identity"], num_pieces=3)
    again.write(None)
    check_same(CASES["Laplace"](resume=tmp_path / "run", checkpoint_every=3), fit)


def test_a_finished_run_comes_back_without_its_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = brief()
    monkeypatch.setattr(Stages, "shared", lambda *_: pytest.fail("evaluated again"))
    check_same(brief(resume=folder), expected)


def test_resume_true_begins_where_nothing_is_kept(tmp_path: Path) -> None:
    """As a job needs it that may be stopped and started again at any time."""
    first = brief(checkpoint=tmp_path / "run", resume=True)
    check_same(brief(checkpoint=tmp_path / "run", resume=True), first)


def test_seed_and_dtype_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    first = brief(checkpoint=tmp_path / "run", seed=None, dtype=torch.float32)
    again = brief(resume=tmp_path / "run", seed=None)
    assert (again.seed, again.problem.dtype) == (first.seed, torch.float32)
    check_same(again, first)


class Thing:
    """An object of the user's, that no checksum can see through."""


def test_objects_of_the_user_are_no_obstacle(tmp_path: Path) -> None:
    def model(y: Tensor, table: Any) -> None:
        mean_of(y)

    def data() -> dict[str, Any]:
        return {"y": HEIGHTS, "table": {"things": [Thing(), (Thing(), 1)], "more": Thing()}}

    fit = brief(model=model, data=data(), checkpoint=tmp_path / "run")
    check_same(brief(model=model, data=data(), resume=tmp_path / "run"), fit)


# What cannot be resumed


def refused(match: str, **options: Any) -> None:
    with pytest.raises(pyl.StoreError, match=match):
        brief(**options)


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "seed": ("seed was 3, is 4", {"seed": 4}),
    "method": ("method settings num_draws was 100, is 200", {"method": Laplace(200)}),
    "kind of method": (
        "method name was 'Laplace', is 'ImportanceSampling'",
        {"method": ImportanceSampling(100)},
    ),
    "model": ("model name was 'mean_of', is 'median_of'", {"model": median_of}),
    "values": ("other data", {"data": {"y": HEIGHTS + 1}}),
    "shape": ("other data", {"data": {"y": HEIGHTS[:, None]}}),
    "name": ("other data", {"model": lambda x: mean_of(x), "data": {"x": HEIGHTS}}),
    "constant": ("other data", {"model": lambda y, n: mean_of(y), "data": {"y": HEIGHTS, "n": 1}}),
    "dtype": ("dtype was 'float64', is 'float32'", {"dtype": torch.float32}),
    "compile": ("compile was 'auto', is False", {"compile": False}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_fit_is_refused(what: str, folder: Path) -> None:
    words, options = OTHERS[what]
    refused(
        rf"run: is the checkpoint of another fit: (.*; )?{words}(;.*)?\. Fit what was",
        resume=folder,
        **options,
    )


def test_another_start_is_refused(folder: Path, tmp_path: Path) -> None:
    first = brief()
    refused("another fit: other start", resume=folder, start=first)
    brief(checkpoint=tmp_path / "second", start=first)
    check_same(brief(resume=tmp_path / "second", start=brief()), brief(start=first))
    refused("another fit: other start", resume=tmp_path / "second", start=brief(seed=9))


def test_other_arguments_of_a_pair_of_ours_are_refused(tmp_path: Path) -> None:
    frame = pyl.datasets.job_satisfaction(30, seed=0).iloc[:, :2]
    pair, other = (BayesianMVN(pyl.infer_schema(frame), eta=eta) for eta in (2.0, 5.0))
    brief(model=pair, data=frame, checkpoint=tmp_path / "run")
    refused("model arguments eta was 2.0, is 5.0", model=other, data=frame, resume=tmp_path / "run")


def test_arguments_that_contradict_each_other(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        pyl.ArgumentError, match=r"resume=True needs a checkpoint\. pass checkpoint=FOLDER too"
    ):
        brief(resume=True)
    with pytest.raises(pyl.ArgumentError, match=r"kept where it was: checkpoint='.*other', resume='.*run'"):
        brief(checkpoint=tmp_path / "other", resume=folder)
    with pytest.raises(pyl.ArgumentError, match=r"checkpoint_every is too small: got 0\. give at least 1"):
        brief(checkpoint=tmp_path / "other", checkpoint_every=0)
    with pytest.raises(pyl.ArgumentError, match=r"checkpoint_every needs a checkpoint\. name a folder as"):
        brief(checkpoint_every=10)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("resume", [None, False])
def test_a_checkpoint_is_never_overwritten(resume: bool | None, folder: Path) -> None:
    refused(
        "run: already holds a checkpoint. Pass resume=True to go on with it", checkpoint=folder, resume=resume
    )


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    refused(
        "nowhere: holds no checkpoint: .*Name the folder that an earlier run", resume=tmp_path / "nowhere"
    )
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("resume", [None, True])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    resume: bool | None, tmp_path: Path
) -> None:
    global runs
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        before = runs
        refused("cannot be written: .*Name another folder", checkpoint=place, resume=resume, model=mortal)
        assert runs == before


def test_a_damaged_checkpoint_is_refused(folder: Path) -> None:
    state = (folder / STATE).read_bytes()
    for damaged in (state[: len(state) // 2], b"", b"not ours"):
        (folder / STATE).write_bytes(damaged)
        refused("run: holds no checkpoint", resume=folder)
        refused("run: holds no checkpoint", checkpoint=folder, resume=True)


def test_a_damaged_or_missing_piece_is_refused(folder: Path) -> None:
    piece = folder / PIECE.format(3)
    whole = piece.read_bytes()
    for damaged in (whole[: len(whole) // 2], b""):
        piece.write_bytes(damaged)
        refused("piece_00003.safetensors: is damaged: .*Copy the folder again", resume=folder)
    piece.unlink()
    refused("piece_00003.safetensors: is missing from the checkpoint", resume=folder)


def test_a_full_disk_is_said_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders.os, "fsync", full)
    refused("piece_00001.safetensors: cannot be written: No space left", checkpoint=tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
