"""Checkpoints: a folder from which a new process goes on with a run as if nothing had happened.

`checkpoint.safetensors` holds all that the next iteration depends on, and what is being fitted, so
that a run is never continued with other data or settings.  What only grows (draws) is written once,
in numbered pieces beside it.  Every file is written aside and renamed, so a run that is killed leaves
the last checkpoint whole.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from pyrolatent.errors import ArgumentError, StoreError
from pyrolatent.folders import write_bytes
from pyrolatent.ranks import Ranks
from pyrolatent.snapshots import flatten, rebuild

STATE = "checkpoint.safetensors"
PIECE = "piece_{:05d}.safetensors"
TIMES = 100  # a run is kept, unless told otherwise
LONGEST = 60  # characters of a value that a message shows


@final
@dataclass
class Checkpoint:
    """Where a run is kept, and what an earlier process has kept there.

    Attributes:
        folder: None where nothing is to be kept.
        every: Iterations between two checkpoints; by default one hundredth of the run.
        identity: What is being fitted, by name.
        ranks: Only the first process writes; all of them read.
        continues: Whether a run is to be continued that was kept there.
        num_pieces: Written so far.
    """

    folder: Path | None = None
    every: int | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    ranks: Ranks = field(default_factory=Ranks)
    continues: bool = False
    num_pieces: int = 0

    def interval(self, total: int) -> int:
        """Return the iterations between two checkpoints of a run of `total`."""
        return self.every or max(1, total // TIMES)

    def due(self, done: int, total: int) -> bool:
        """Return whether to write after `done` of `total` iterations."""
        return self.folder is not None and done % self.interval(total) == 0

    def write(self, state: Any, piece: Mapping[str, Tensor] | None = None) -> None:
        """Put `state` in place of what was kept before, and one more piece beside the others.

        Args:
            state: Nested tensors and numbers (`snapshots`); the same in all processes.
            piece: Tensors by name.
        """
        if self.folder is None:
            return
        number = self.num_pieces + bool(piece)
        if self.ranks.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            if piece:
                whole = {name: value.detach().cpu().contiguous().clone() for name, value in piece.items()}
                write_bytes(self.folder / PIECE.format(number), serialise(whole))
            tensors: dict[str, Tensor] = {}
            plain = {"state": flatten(state, tensors), "identity": self.identity, "num_pieces": number}
            write_bytes(self.folder / STATE, serialise(tensors, {"checkpoint": json.dumps(plain)}))
        self.num_pieces = number

    def read(self, classes: Iterable[type[Any]], device: torch.device) -> Any:
        """Return the state kept last, or None where there is none to go on from.

        Args:
            classes: Those that the state may hold.
            device: Where tensors go that were not on the CPU.
        """
        if self.folder is None or not self.continues:
            return None
        plain, tensors = opened(self.folder / STATE)
        self.num_pieces = plain["num_pieces"]
        return rebuild(plain["state"], tensors, classes, device)

    def pieces(self) -> list[dict[str, Tensor]]:
        """Return all pieces up to the state read or written last, in order, on the CPU."""
        if self.folder is None:
            return []
        return [tensors_in(self.folder / PIECE.format(n)) for n in range(1, self.num_pieces + 1)]


def opened(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a checkpoint says and its tensors.

    Raises:
        StoreError: There is none, or it is not one of ours.
    """
    try:
        with safe_open(path, "pt") as file:
            plain = json.loads((file.metadata() or {})["checkpoint"])
        return plain, load_file(path)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        remedy = "Name the folder that an earlier run was given as checkpoint, or leave resume out"
        raise StoreError(
            "holds no checkpoint", where=str(path.parent), why=str(error), remedy=remedy
        ) from error


def tensors_in(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a piece.

    Raises:
        StoreError: It is missing or damaged.
    """
    try:
        return {name: value.clone() for name, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        what = "is damaged" if path.exists() else "is missing from the checkpoint"
        remedy = "Copy the folder again, or start anew"
        raise StoreError(what, where=str(path), why=str(error), remedy=remedy) from error


def kept_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what the run that was kept in a folder fits."""
    plain, _ = opened(Path(path) / STATE)
    identity: dict[str, Any] = plain["identity"]
    return identity


def kept_folder(
    checkpoint: str | os.PathLike[str] | None, resume: str | os.PathLike[str] | bool | None, ranks: Ranks
) -> tuple[Path | None, bool]:
    """Return the folder of a run, which can be written, and whether one kept there is to be continued.

    Raises:
        ArgumentError: `resume` and `checkpoint` contradict each other.
        StoreError: There is no checkpoint to resume, or one that nobody asked to continue; or the folder
            cannot be written.
    """
    folder = named_folder(checkpoint, resume)
    if folder is None:
        return None, False
    # A process that comes late must not take what the first has written by then for an earlier run.
    exists = bool(ranks.agreed(int((folder / STATE).exists())))
    wanted = resume is not None and resume is not False
    if exists and not wanted:
        remedy = "Pass resume=True to go on with it (--resume on the command line), or another folder"
        raise StoreError("already holds a checkpoint", where=str(folder), remedy=remedy)
    if exists or not isinstance(resume, bool | None):
        opened(folder / STATE)
    check_writable(folder)
    return folder, exists


def named_folder(
    checkpoint: str | os.PathLike[str] | None, resume: str | os.PathLike[str] | bool | None
) -> Path | None:
    """Return the folder that the two arguments name together."""
    named = None if checkpoint is None else Path(checkpoint).resolve()
    if resume is True and named is None:
        raise ArgumentError("resume=True needs a checkpoint", remedy="pass checkpoint=FOLDER too")
    if isinstance(resume, bool) or resume is None:
        return named
    folder = Path(resume).resolve()
    if named not in (None, folder):
        raise ArgumentError(
            "a resumed run is kept where it was",
            why=f"checkpoint={str(named)!r}, resume={str(folder)!r}",
            remedy="leave checkpoint out",
        )
    return folder


def check_writable(folder: Path) -> None:
    """Make a folder, and refuse one in which nothing can be written, before the work that is kept there.

    Raises:
        StoreError: With the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "Name another folder for the checkpoint"
        where, why = str(folder), str(error.strerror)
        raise StoreError("cannot be written", where=where, why=why, remedy=remedy) from error


def check_identity(folder: Path, identity: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """Refuse to go on with the run of something else.

    Raises:
        StoreError: With what differs.
    """
    differing = [found for name in identity for found in differences(name, kept.get(name), identity[name])]
    if differing:
        remedy = "Fit what was fitted before, or give another folder"
        raise StoreError(
            "is the checkpoint of another fit", where=str(folder), why="; ".join(differing), remedy=remedy
        )


def differences(name: str, old: Any, new: Any) -> list[str]:
    """Return in words each part of `name` in which two plain values differ; of long ones only the name."""
    before, now = json.dumps(old), json.dumps(new)  # which takes lists for tuples, and NaN for NaN
    if before == now:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        parts = {**old, **new}
        return [words for key in parts for words in differences(f"{name} {key}", old.get(key), new.get(key))]
    long = max(len(before), len(now)) > LONGEST
    return [f"other {name}" if long else f"{name} was {old!r}, is {new!r}"]
