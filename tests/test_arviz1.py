"""ArviZ 1 reads what is exported here, in the environment that `make arviz1` makes, if there is one."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pyrolatent.export import GROUPS, to_inference_data
from tests.arviz_objects import IS_TREE, dataset
from tests.small_fits import table_fit

PYTHON = Path(__file__).parent.parent / ".venv-arviz1" / "bin" / "python"

READ = """
import json, sys, arviz
tree = arviz.from_netcdf(sys.argv[1])
loo = arviz.loo(tree)
print(json.dumps({
    "arviz": arviz.__version__,
    "method": tree.attrs["method"],
    "means": {
        group: {name: float(values.mean()) for name, values in node.data_vars.items()}
        for group, node in tree.children.items()
    },
    "rows": list(arviz.summary(tree, var_names=["mean", "scale"]).index),
    "observations": int(loo.n_data_points),
}))
"""


@pytest.mark.skipif(IS_TREE, reason="the exporter's own tests run with ArviZ 1 here")
@pytest.mark.skipif(not PYTHON.exists(), reason="no environment with ArviZ 1: make arviz1 makes one")
def test_arviz_1_reads_an_exported_file(tmp_path: Path) -> None:
    found = to_inference_data(table_fit())
    found.to_netcdf(str(tmp_path / "posterior.nc"), engine="h5netcdf")
    command = [str(PYTHON), "-c", READ, str(tmp_path / "posterior.nc")]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert int(told["arviz"].split(".")[0]) >= 1
    assert told["method"] == found.attrs["method"]
    assert set(told["means"]) == set(GROUPS)
    for group, means in told["means"].items():
        for name, values in dataset(found, group).data_vars.items():
            # Sums in another order.
            np.testing.assert_allclose(
                means[name], float(values.mean()), rtol=1e-9, err_msg=f"{group} {name}"
            )
    assert {"mean[visits]", "scale[$weight$]"} <= set(told["rows"])
    assert told["observations"] == found.log_likelihood["x"].sizes["data"]
