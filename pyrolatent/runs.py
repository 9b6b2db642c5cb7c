"""What a command leaves behind: a folder with a fit, its export, summary, report and completed tables."""

import os
from pathlib import Path

import pandas as pd

from pyrolatent.abtest.analysis import ABResult
from pyrolatent.cells import cell_table
from pyrolatent.export import to_inference_data
from pyrolatent.folders import output_folder
from pyrolatent.imputations import Imputations
from pyrolatent.impute import impute
from pyrolatent.report import report
from pyrolatent.result import Fit
from pyrolatent.store import write_fit
from pyrolatent.summary import summary
from pyrolatent.tables import write_frame

EXPORTED_DRAWS = 1_000  # at least, and all while log-likelihoods are no more numbers than
EXPORTED_NUMBERS = 5_000_000


def write_run(
    fit: Fit, path: str | os.PathLike[str], *, force: bool = False, truth: pd.DataFrame | None = None
) -> Imputations:
    """Write a fit to a table with `posterior.nc`, `summary.csv` and `report.html` into a folder.

    The fit is in place before the rest is made, so that it cannot be lost by it.

    Args:
        fit: A fit to a table.
        path: The folder.
        force: Whether to replace an earlier run.
        truth: The table with the values that were hidden, for the report.

    Returns:
        The completed cells that the report shows.

    Raises:
        StoreError: The folder holds files, or cannot be written.
    """
    with output_folder(path, force) as aside:
        write_fit(fit, aside)
    folder = Path(path)
    imputations = impute(fit)
    exported = max(EXPORTED_DRAWS, EXPORTED_NUMBERS // len(imputations.frame))
    to_inference_data(fit, max_draws=exported).to_netcdf(folder / "posterior.nc", engine="h5netcdf")
    write_frame(summary(fit).rename_axis("name"), folder / "summary.csv")
    report(fit, folder / "report.html", imputations, truth)
    return imputations


def write_result(result: ABResult, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Write the result of a test into a folder: tables, `report.html`, `posterior.nc`, the fit.

    Args:
        result: From `abtest.analyze`.
        path: The folder.
        force: Whether to replace an earlier run.

    Raises:
        StoreError: The folder holds files, or cannot be written.
    """
    with output_folder(path, force) as aside:
        write_fit(result.fit, aside)
        write_frame(result.arms.rename_axis("arm"), aside / "arms.csv")
        write_frame(result.lift.rename_axis("arm"), aside / "lift.csv")
        result.report(aside / "report.html")
        exported = to_inference_data(result.fit, groups=["posterior"])
        exported.to_netcdf(aside / "posterior.nc", engine="h5netcdf")


def write_completed(imputations: Imputations, folder: Path, suffix: str = "csv") -> int:
    """Write `imputed_01.csv`, `imputed_02.csv`, ..., and `cells.csv`, one line for each missing cell.

    Args:
        imputations: Draws of the missing cells.
        folder: Where to write.
        suffix: "csv" or "parquet", for the completed tables.

    Returns:
        The number of completed tables: at most that of the posterior draws.
    """
    digits, number = max(2, len(str(imputations.num_frames))), 0
    for number, frame in enumerate(imputations.frames, start=1):
        write_frame(frame, folder / f"imputed_{number:0{digits}}.{suffix}")
    write_frame(cell_table(imputations), folder / "cells.csv")
    return number
