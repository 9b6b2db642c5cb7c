import functools
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from pyrolatent.errors import ArgumentError, DataError, FitWarning, ModelError, StoreError
from pyrolatent.export import to_inference_data
from pyrolatent.fit import fit
from pyrolatent.folders import SUMS, digest
from pyrolatent.impute import impute
from pyrolatent.infer.hmc import HMC
from pyrolatent.infer.importance import ImportanceSampling
from pyrolatent.infer.laplace import Laplace
from pyrolatent.infer.method import Method
from pyrolatent.infer.svi import SVI
from pyrolatent.models.mvn import BayesianMVN
from pyrolatent.objectives import elbo, iwae
from pyrolatent.pair import Model, Pair, as_pair
from pyrolatent.predict import predict
from pyrolatent.result import Fit
from pyrolatent.schema import Schema
from pyrolatent.store import FIT, FRAME, TENSORS, load, save
from pyrolatent.summary import summary
from tests.small_fits import completed, function_fit, holed_table, line, table_fit
from tests.user_pairs import VAE, regression, regression_data, vae


def equal(found: Any, expected: Any) -> bool:
    """Equal to the last bit, order of dictionaries included."""
    if isinstance(expected, Tensor):
        same = (found == expected) | (found != found) & (expected != expected)
        return found.dtype == expected.dtype and found.shape == expected.shape and bool(same.all())
    if isinstance(expected, dict):
        pairs = zip(found.items(), expected.items(), strict=True)
        return all(a == b and equal(x, y) for (a, x), (b, y) in pairs)
    return type(found) is type(expected) and (found == expected or (found != found and expected != expected))


def check_results(found: Fit, expected: Fit) -> None:
    for name in ("samples", "sample_stats", "diagnostics", "info", "losses", "params", "state"):
        assert equal(getattr(found, name), getattr(expected, name)), name
    assert (found.method, found.warnings) == (expected.method, expected.warnings)
    assert (found.weights is None) == (expected.weights is None)
    if found.weights is not None and expected.weights is not None:
        assert equal(vars(found.weights), vars(expected.weights))
    for name in ("layout", "latents", "observed", "deterministics", "factors", "parameters", "rows"):
        assert getattr(found.sites, name) == getattr(expected.sites, name), name
    for name in ("seed", "dtype", "device", "compile"):
        assert getattr(found.problem, name) == getattr(expected.problem, name), name


def test_these_tests_compare_all_there_is() -> None:
    compared = {"samples", "sample_stats", "diagnostics", "info", "method", "warnings", "sites", "problem"}
    compared |= {"losses", "params", "state", "weights"}
    found_again = {"parameters", "guide"}  # from the model
    assert {field.name for field in fields(Fit)} == compared | found_again


def test_a_fit_to_a_table_comes_back(tmp_path: Path) -> None:
    save(table_fit(), tmp_path / "run")
    found = load(tmp_path / "run")
    check_results(found, table_fit())
    assert found.pair == table_fit().pair
    assert equal(found.data, table_fit().data)
    pd.testing.assert_frame_equal(found.problem.frame, holed_table(), check_exact=True)
    pd.testing.assert_frame_equal(summary(found), summary(table_fit()), check_exact=True)


def test_a_loaded_fit_completes_and_predicts_as_the_first_did(tmp_path: Path) -> None:
    save(table_fit(), tmp_path / "run")
    found = load(tmp_path / "run")
    for a, b in zip(completed(found).frames, completed(table_fit()).frames, strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    pd.testing.assert_frame_equal(predict(found, num_draws=3), predict(table_fit(), num_draws=3))


def test_a_function_is_passed_again(tmp_path: Path) -> None:
    save(function_fit(), tmp_path / "run")
    found = load(tmp_path / "run", model=line)
    check_results(found, function_fit())
    assert {name: found.data[name] for name in ("powers", "name", "nothing")} == {
        "powers": (1, 2),
        "name": "a",
        "nothing": None,
    }
    assert equal(predict(found, num_draws=5), predict(function_fit(), num_draws=5))


def test_without_its_function_a_fit_can_be_read_but_not_run(tmp_path: Path) -> None:
    save(function_fit(), tmp_path / "run")
    found = load(tmp_path / "run")
    check_results(found, function_fit())
    pd.testing.assert_frame_equal(summary(found), summary(function_fit()), check_exact=True)
    exported = to_inference_data(found)
    assert exported["posterior"]["noise"].to_numpy().tolist() == found.samples["noise"].tolist()
    with pytest.raises(ModelError, match=r"does not hold its model: line is code.*load\(path, model=line\)"):
        predict(found)


def test_a_fit_can_be_saved_again_without_its_function(tmp_path: Path) -> None:
    save(function_fit(), tmp_path / "first")
    save(load(tmp_path / "first"), tmp_path / "second")
    for name in (FIT, TENSORS, SUMS):
        assert digest(tmp_path / "first" / name) == digest(tmp_path / "second" / name)


def quick(model: Any, data: dict[str, Any], method: Method, **options: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return fit(model, data, method, seed=3, progress=False, **options)


@pytest.mark.parametrize("method", [Laplace(num_draws=100), ImportanceSampling(num_draws=200)])
def test_weights_come_back(tmp_path: Path, method: Method) -> None:
    first = quick(regression, regression_data(), method)
    save(first, tmp_path / "run")
    check_results(load(tmp_path / "run", model=regression), first)


def test_a_network_comes_back_with_what_it_learnt(tmp_path: Path) -> None:
    user = vae()
    method = SVI(iwae(3), num_steps=30, batch_size=16, num_draws=4, num_refits=2)
    first = quick(user.model, user.data, method, guide=user.guide)
    save(first, tmp_path / "run")
    fresh = vae()
    found = load(tmp_path / "run", model=as_pair(fresh.model, fresh.guide))
    check_results(found, first)
    # the weights lie elsewhere in memory, so that sums may be rounded otherwise
    torch.testing.assert_close(predict(found, num_draws=4), predict(first, num_draws=4))
    unread = load(tmp_path / "run")
    check_results(unread, first)
    save(unread, tmp_path / "second")
    check_results(load(tmp_path / "second", model=as_pair(fresh.model, fresh.guide)), first)
    small = VAE(hidden=3)
    with pytest.raises(ModelError, match=r"not the one that was fitted: it learns"):
        load(tmp_path / "run", model=as_pair(small.model, small.guide))


def test_a_loss_of_the_users_comes_back_as_its_name(tmp_path: Path) -> None:
    method = SVI(plain_loss, num_steps=20, optimizer=torch.optim.SGD, lr=1e-4)
    first = quick(regression, regression_data(), method)
    save(first, tmp_path / "run")
    found = load(tmp_path / "run").method
    assert found.objective == "tests.test_store.plain_loss"
    assert found.optimizer is torch.optim.SGD


def plain_loss(pair: Pair, data: Any, noise: Any, step: Tensor) -> Tensor:
    return elbo()(pair, data, noise, step)


class OtherPair(Pair):
    """A pair of the user's own, which no table of ours knows."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    @property
    def model(self) -> Model:
        return self.pair.model

    @property
    def guide(self) -> None:
        return None

    @property
    def schema(self) -> Schema | None:
        return self.pair.schema


@pytest.mark.parametrize("name", ["OtherPair", "BayesianMVN"])
def test_a_pair_of_the_users_own_keeps_its_schema_and_is_passed_again(tmp_path: Path, name: str) -> None:
    pair = type(name, (OtherPair,), {})(table_fit().pair)
    fit = replace(table_fit(), problem=replace(table_fit().problem, pair=pair))
    save(fit, tmp_path / "run")
    assert load(tmp_path / "run").schema == fit.schema
    with pytest.raises(ModelError, match=f"load it with load.path, model={name}."):
        predict(load(tmp_path / "run"))
    found = load(tmp_path / "run", model=fit.pair)
    pd.testing.assert_frame_equal(predict(found, num_draws=2), predict(fit, num_draws=2))


def test_our_pairs_take_no_model(tmp_path: Path) -> None:
    save(table_fit(), tmp_path / "run")
    with pytest.raises(ArgumentError, match="brings its own model, BayesianMVN"):
        load(tmp_path / "run", model=line)


def other_arguments(x: Tensor, y: Tensor, sigma: Tensor) -> None:
    pyro.sample("a/slope", dist.Normal(0.0, 1.0))


def other_sites(x: Tensor, y: Tensor, powers: tuple[int, int], name: str, nothing: None) -> None:
    slope = pyro.sample("a/slope", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)


def other_shape(x: Tensor, y: Tensor, powers: tuple[int, int], name: str, nothing: None) -> None:
    line(x, y, (*powers, 3), name)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (other_arguments, "missing in the data: \\['sigma'\\]; unknown to the model: \\['powers'"),
        (other_sites, "not the one that was fitted: latents.*has.*a/slope.*the saved fit.*noise"),
        (other_shape, "not the one that was fitted.*\\[3\\].*the saved fit.*\\[2\\]"),
    ],
)
def test_another_function_is_refused(tmp_path: Path, model: Model, message: str) -> None:
    save(function_fit(), tmp_path / "run")
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "run", model=model)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def edit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, edit])
@pytest.mark.parametrize("name", [FIT, TENSORS, FRAME])
def test_a_truncated_or_edited_file_is_refused(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    save(table_fit(), tmp_path / "run")
    damage(tmp_path / "run" / name)
    message = rf"run/{name}: was truncated or edited.*checksum.*Copy the folder again"
    with pytest.raises(StoreError, match=message):
        load(tmp_path / "run")


@pytest.mark.parametrize("name", [FIT, TENSORS, FRAME])
def test_a_lost_file_is_named(tmp_path: Path, name: str) -> None:
    save(table_fit(), tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    with pytest.raises(StoreError, match=rf"run/{name}: is missing from the saved fit"):
        load(tmp_path / "run")


@pytest.mark.parametrize("name", [FIT, TENSORS])
def test_truncated_checksums_vouch_for_nothing(tmp_path: Path, name: str) -> None:
    save(function_fit(), tmp_path / "run")
    sums = (tmp_path / "run" / SUMS).read_text().splitlines()
    (tmp_path / "run" / SUMS).write_text("\n".join(row for row in sums if name not in row))
    with pytest.raises(StoreError, match=rf"run/{name}: was truncated or edited"):
        load(tmp_path / "run")


def test_a_folder_without_a_fit_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(
            StoreError, match=r"holds no saved fit: SHA256SUMS cannot be read.*Give the folder"
        ):
            load(folder)


def test_another_format_is_refused(tmp_path: Path) -> None:
    save(function_fit(), tmp_path / "run")
    file, sums = tmp_path / "run" / FIT, tmp_path / "run" / SUMS
    before = digest(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))
    sums.write_text(sums.read_text().replace(before, digest(file)))
    with pytest.raises(
        StoreError, match="saved by another version: its format is 1, and this version reads 2"
    ):
        load(tmp_path / "run")


def test_without_its_data_a_fit_completes_new_rows(tmp_path: Path) -> None:
    save(table_fit(), tmp_path / "run", include_data=False)
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [SUMS, FIT, TENSORS]
    found = load(tmp_path / "run")
    check_results(found, table_fit())
    pd.testing.assert_frame_equal(summary(found), summary(table_fit()), check_exact=True)
    for a, b in zip(completed(found, holed_table()).frames, completed(table_fit()).frames, strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_without_its_data_a_fit_holds_no_cell_of_the_table(tmp_path: Path) -> None:
    save(table_fit(), tmp_path / "run", include_data=False)
    text = (tmp_path / "run" / FIT).read_text()
    weights = sorted(holed_table()["$weight$"].dropna())
    assert not any(repr(cell) in text for cell in [*weights[1:-1], *holed_table().index])
    assert all(repr(cell) in text for cell in (weights[0], weights[-1]))  # the schema keeps the range


@pytest.mark.parametrize("verb", [impute, predict, lambda fit: list(fit.data), lambda fit: len(fit.data)])
def test_without_its_data_verbs_ask_for_them(tmp_path: Path, verb: Callable[[Fit], Any]) -> None:
    save(table_fit(), tmp_path / "run", include_data=False)
    with pytest.raises(DataError, match=r"saved without its data.*impute\(fit, frame\)"):
        verb(load(tmp_path / "run"))


def test_a_function_without_its_data_takes_new_ones(tmp_path: Path) -> None:
    save(function_fit(), tmp_path / "run", include_data=False)
    found = load(tmp_path / "run", model=line)
    again = predict(found, function_fit().data, num_draws=5)
    assert equal(again, predict(function_fit(), num_draws=5))
    save(found, tmp_path / "again")
    assert digest(tmp_path / "again" / TENSORS) == digest(tmp_path / "run" / TENSORS)


def test_single_precision_stays_and_an_absent_device_becomes_the_cpu(tmp_path: Path) -> None:
    problem = replace(function_fit().problem, dtype=torch.float32, device=torch.device("cuda", 99))
    save(replace(function_fit(), problem=problem), tmp_path / "run")
    found = load(tmp_path / "run").problem
    assert (found.dtype, found.device) == (torch.float32, torch.device("cpu"))


def test_tensors_that_share_memory_or_are_empty_come_back(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    data = {"half": base[::2], "whole": base, "flags": base > 3, "none": base[:0], "one": base[3]}
    save(replace(function_fit(), problem=replace(function_fit().problem, data=data)), tmp_path / "run")
    assert equal(dict(load(tmp_path / "run").data), data)


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    info = {**function_fit().info, "odd": (math.inf, math.nan, 1e-320)}
    save(replace(function_fit(), info=info), tmp_path / "run")
    assert repr(load(tmp_path / "run").info["odd"]) == repr(info["odd"])


def test_an_entry_without_a_plain_form_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    data = {**function_fit().data, "link": torch.exp}
    fit = replace(function_fit(), problem=replace(function_fit().problem, data=data))
    with pytest.raises(StoreError, match=r"data entry 'link': cannot be saved: .*include_data=False"):
        save(fit, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    save(fit, tmp_path / "run", include_data=False)


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    save(function_fit(), tmp_path / "run")
    with pytest.raises(StoreError, match="already exists and is not empty"):
        save(table_fit(), tmp_path / "run")
    check_results(load(tmp_path / "run"), function_fit())


def test_pairs_come_back_with_all_their_settings(tmp_path: Path) -> None:
    pair = BayesianMVN(table_fit().pair.schema, eta=0.5, standardise=False)
    save(replace(table_fit(), problem=replace(table_fit().problem, pair=pair)), tmp_path / "run")
    assert load(tmp_path / "run").pair == pair


@pytest.mark.parametrize("include_data", [True, False])
def test_new_rows_are_predicted_with_what_was_learnt(tmp_path: Path, include_data: bool) -> None:
    """By SVI, and by HMC at the parameters that SVI has learnt; after a second round, too."""

    def slope(x: Tensor, y: Tensor | None = None) -> None:
        centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
        rise = pyro.param("rise", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(centre + rise * x, 0.1), obs=y)

    x = torch.linspace(-1.0, 1.0, 30, dtype=torch.float64)
    data, new = {"x": x, "y": 5 * x}, {"x": torch.tensor([1.0, 2.0], dtype=torch.float64)}
    learnt = quick(slope, data, SVI(num_steps=1_500, lr=0.05, num_draws=20))
    sampled = quick(slope, data, HMC(num_chains=4, num_warmup=30, num_draws=10), start=learnt)
    for name, first in {"learnt": learnt, "sampled": sampled}.items():
        expected = predict(first, new, num_draws=10)
        for folder in (f"{name}_once", f"{name}_twice"):
            save(first, tmp_path / folder, include_data)
            first = load(tmp_path / folder, model=slope)
            assert equal(predict(first, new, num_draws=10), expected)
        assert expected["y"].mean() > 5  # type: ignore[union-attr]


def test_a_fit_with_a_class_of_autoguides_comes_back(tmp_path: Path) -> None:
    first = quick(regression, regression_data(), SVI(num_steps=20, num_draws=200), guide=AutoNormal)
    save(first, tmp_path / "run")
    found = load(tmp_path / "run", model=as_pair(regression, AutoNormal))
    check_results(found, first)
    again = quick(regression, regression_data(), ImportanceSampling(num_draws=200), start=found)
    assert set(again.samples) == set(first.samples)


class CallableLoss:
    def __call__(self, pair: Pair, data: Any, noise: Any, step: Tensor) -> Tensor:
        return elbo()(pair, data, noise, step)


def half(step: Tensor) -> Tensor:
    return 0.5 + 0 * step


def test_settings_that_are_functions_with_settings_come_back(tmp_path: Path) -> None:
    adam = functools.partial(torch.optim.AdamW, weight_decay=0.1, betas=(0.8, 0.9))
    first = quick(regression, regression_data(), SVI(elbo(half), num_steps=5, optimizer=adam))
    save(first, tmp_path / "first")
    loaded = load(tmp_path / "first")
    save(loaded, tmp_path / "again")
    for found in (loaded.method, load(tmp_path / "again").method):
        assert found.optimizer.func is torch.optim.AdamW
        assert found.optimizer.keywords == adam.keywords
        assert found.objective.beta == "tests.test_store.half"
        with pytest.raises(ModelError, match=r"test_store.half: the saved fit does not hold this function"):
            found.objective.beta(torch.tensor(0.0))
    second = quick(regression, regression_data(), SVI(CallableLoss(), num_steps=5))
    save(second, tmp_path / "second")
    assert load(tmp_path / "second").method.objective == "tests.test_store.CallableLoss"
