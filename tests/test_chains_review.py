"""What a run of chains refuses before it begins, on the command line and in several processes."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.cli import main
from pyrolatent.infer.start import begin_at
from pyrolatent.ranks import Ranks


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--checkpoint", "out"], "Error: {out}: the checkpoint would be in the way of the fit. "),
        (["--checkpoint", "out/kept"], "Error: {out}: the checkpoint would be in the way of the fit. "),
        (["--resume"], "Error: --resume needs a checkpoint. name its folder with --checkpoint."),
        (["--checkpoint-every", "9"], "Error: --checkpoint-every needs a checkpoint. "),
    ],
)
def test_options_of_a_checkpoint_are_checked_before_the_table_is_read(
    options: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["fit", "absent.csv", "--out", "out", *options])
    assert result.exit_code == 1
    assert result.stderr.startswith(expected.format(out="out"))
    assert list(tmp_path.iterdir()) == []


def test_all_processes_refuse_what_one_of_them_cannot_begin_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the others wait for it."""

    def positive(position: Tensor) -> tuple[Tensor, Tensor]:
        return position.log().sum(-1), 1 / position

    def gather(ranks: Ranks, part: Tensor) -> Tensor:  # the second process is at points of no density
        return torch.cat([part, torch.zeros_like(part)])

    monkeypatch.setattr(Ranks, "gather", gather)
    draws, flat = torch.tensor([[1.0], [2.0], [-1.0], [-2.0]]), torch.ones(1, 1)
    with pytest.raises(pyl.ModelError, match="not finite at draws of the fit to start from: 4 of 8 chains"):
        begin_at(positive, draws, 8, 2, flat, Ranks(0, 2))
