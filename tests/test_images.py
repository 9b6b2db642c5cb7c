"""Images: arrays to tensors, pixels against SciPy, convolutional autoencoders end to end."""

import re
import warnings

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import pyrolatent as pyl
from pyrolatent.models import VAE
from pyrolatent.nn import ImageDecoder, ImageEncoder
from pyrolatent.nn.images import halvings
from pyrolatent.pixels import DiscretisedLogistic

pytestmark = pytest.mark.filterwarnings("ignore:The loss still fell:pyrolatent.FitWarning")

SHAPES = [(1, 28, 28), (3, 64, 64), (1, 8, 8), (1, 5, 30), (1, 3, 3)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def bars(num_images: int = 300, size: int = 8, seed: int = 0) -> Tensor:
    """Binary images of one bright row and one bright column each."""
    rng = np.random.default_rng(seed)
    images = np.zeros((num_images, 1, size, size), dtype=bool)
    images[np.arange(num_images), 0, rng.integers(size, size=num_images)] = True
    images[np.arange(num_images), 0, :, rng.integers(size, size=num_images)] = True
    return pyl.as_images(images)


# Arrays


def test_arrays_of_all_layouts_become_the_same_images() -> None:
    levels = np.random.default_rng(0).integers(256, size=(4, 3, 6, 7)).astype(np.uint8)
    images = pyl.as_images(levels)
    assert images.shape == (4, 3, 6, 7)
    assert images.dtype is torch.float32
    np.testing.assert_allclose(images.numpy() * 255, levels, atol=1e-4)
    last = np.moveaxis(levels, 1, 3)
    for same in (last, list(last), torch.tensor(levels), levels / 255):
        torch.testing.assert_close(pyl.as_images(same), images)
    grey = pyl.as_images(levels[:, 0])
    torch.testing.assert_close(grey, images[:, :1])
    assert pyl.as_images(levels[:, 0] > 100).unique().tolist() == [0, 1]


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([np.zeros((4, 5)), np.zeros((4, 6))], "image 1: images differ in size: it is (4, 6)"),
        (np.full((2, 3, 3), 1.5), "image 0, at (0, 0): a value is not from 0 to 1: got 1.5."),
        (np.full((2, 3, 3), 300), "image 0, at (0, 0): a value is not from 0 to 255: got 300."),
        (np.array([[[0.5, np.nan]]]), "image 0, at (0, 1): a value is not from 0 to 1: got nan."),
        (np.zeros((2, 3)), "these are no images: got shape (2, 3) of float64."),
        ([], "these are no images: got shape (0,) of float64."),
        (["cat.png"], "these are no images"),
    ],
)  # fmt: skip
def test_what_is_no_image(pictures: object, message: str) -> None:
    with pytest.raises(pyl.DataError, match=re.escape(message)):
        pyl.as_images(pictures)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (28, 28)}, "the shape is none of an image: got (28, 28). pass (C, H, W)."),
        ({"shape": (1, 0, 28)}, "the shape is none of an image: got (1, 0, 28)."),
        ({"shape": (1, 8, 8), "pixels": "grey"}, "there are no such pixels: got 'grey'. choose one of"),
    ],
)
def test_wrong_images(settings: dict, message: str) -> None:
    with pytest.raises(pyl.ArgumentError, match=re.escape(message)):
        pyl.Images(**settings)


# Pixels


def test_levels_are_a_rounded_logistic_number() -> None:
    location, scale = torch.tensor([0.02, 0.5, 1.1]).double(), torch.tensor([0.01, 0.2, 0.05]).double()
    pixels = DiscretisedLogistic(location, scale, 8)
    levels = torch.arange(8).double() / 7
    found = pixels.log_prob(levels[:, None]).exp().numpy()
    edges = np.concatenate([[-np.inf], (np.arange(7) + 0.5) / 7, [np.inf]])
    expected = np.diff(stats.logistic.cdf(edges[:, None], location.numpy(), scale.numpy()), axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.sum(0), 1)


def test_draws_of_levels_have_their_probabilities() -> None:
    pixels = DiscretisedLogistic(torch.tensor(0.8).double(), torch.tensor(0.2).double(), 4)
    torch.manual_seed(0)
    draws = pixels.sample((20_000,))
    assert pixels.support.check(draws).all()
    assert not pixels.support.check(torch.tensor([0.5, -1 / 3, 4 / 3])).any()
    counts = np.bincount((draws * 3).round().long(), minlength=4)
    expected = 20_000 * pixels.log_prob(torch.arange(4).double() / 3).exp().numpy()
    assert stats.chisquare(counts, expected).pvalue > 1e-3


# Networks


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("pixels", ["binary", "continuous", "levels"])
def test_networks_keep_the_shape(shape: tuple[int, int, int], given: bool, pixels: str) -> None:
    images = pyl.Images(shape, pixels)
    torch.manual_seed(0)
    x, mask = random(2, *shape), random(2, *shape, seed=1) > 0.3
    z = ImageEncoder(images, (16,), 3)(x, mask).mean
    assert z.shape == (2, 3)
    cells = ImageDecoder(images, (16,), 3, given)(z, x if given else None)
    assert cells.batch_shape == (2, *shape)
    assert cells.log_prob(x.round()).isfinite().all()


def test_images_are_halved_until_they_are_small() -> None:
    assert halvings((1, 28, 28)) == [(28, 28), (14, 14), (7, 7)]
    assert halvings((3, 64, 64)) == [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4)]
    assert halvings((1, 3, 90)) == [(3, 90)]


def test_what_is_given_is_what_is_taken_away() -> None:
    """An image less itself tells nothing but the mask."""
    torch.manual_seed(0)
    encoder = ImageEncoder(pyl.Images((1, 8, 8)), (16,), 3)
    x, mask = random(2, 1, 8, 8), torch.ones(2, 1, 8, 8, dtype=torch.bool)
    found = encoder(x, mask, x).mean
    torch.testing.assert_close(found[0], found[1])


# Fits


def fitted(pixels: str = "binary", steps: int = 400, **settings: object) -> pyl.Fit:
    images = bars()
    pair = VAE(pyl.Images((1, 8, 8), pixels), 6, (64,))
    method = pyl.SVI(num_steps=steps, lr=3e-3, batch_size=100)
    return pyl.fit(pair, {"x": images, **settings}, method, seed=0, compile=False, progress=False)


@pytest.fixture(scope="module")
def trained() -> pyl.Fit:
    return fitted()


def test_images_are_learnt(trained: pyl.Fit) -> None:
    assert trained.info["rung"] == "vmap"
    assert trained.problem.dtype is torch.float32
    x = trained.data["x"]
    rate = x.mean((0, 1))
    apart = torch.distributions.Bernoulli(rate).log_prob(x).sum((1, 2, 3)).mean()  # pixels on their own
    assert pyl.score(trained, num_draws=100).mean() > apart + 10
    again = pyl.reconstruct(trained)["x"]
    assert (again == x).float().mean() > 0.95


def test_verbs_return_images(trained: pyl.Fit) -> None:
    new = bars(3, seed=1)
    assert pyl.encode(trained, {"x": new}).shape == (3, 6)
    made = pyl.generate(trained, 7, seed=1)["x"]
    assert made.shape == (7, 1, 8, 8)
    assert set(made.unique().tolist()) <= {0, 1}
    assert pyl.reconstruct(trained, {"x": new})["x"].shape == (3, 1, 8, 8)
    assert pyl.traverse(trained, {"x": new[:1]}, 0, [-2, 0, 2])["x"].shape == (3, 1, 8, 8)


def test_missing_pixels_change_nothing_and_are_completed() -> None:
    x, mask = bars(), random(300, 1, 8, 8) > 0.2
    zeros, ones = (fitted(steps=400, mask=mask, x=torch.where(mask, x, filled)) for filled in (0.0, 1.0))
    assert torch.equal(zeros.losses["train"], ones.losses["train"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyl.FitWarning)  # few draws of the guide for some rows
        completed = pyl.impute(zeros, num_draws=20)["x"]
    assert completed.shape == (20, 300, 1, 8, 8)
    assert torch.equal(completed[:, mask], x[mask].expand(20, -1))
    wrong = (completed - x)[:, ~mask].abs().mean()
    rate = x.mean(0)
    apart = (2 * rate * (1 - rate)).expand(x.shape)[~mask].mean()  # of pixels drawn on their own
    assert wrong < apart / 2


def test_a_saved_one_comes_back(trained: pyl.Fit, tmp_path) -> None:
    pyl.save(trained, tmp_path / "fit")
    back = pyl.load(tmp_path / "fit")
    assert back.pair == trained.pair
    assert torch.equal(pyl.generate(back, 3, seed=1)["x"], pyl.generate(trained, 3, seed=1)["x"])


def test_pixels_outside_their_support_are_refused() -> None:
    method = pyl.SVI(num_steps=2)
    grey = {"x": 0.5 + 0 * bars(4)}
    with pytest.raises(pyl.DataError, match="site 'x'"):
        pyl.fit(VAE(pyl.Images((1, 8, 8), "binary")), grey, method, progress=False)
    with pytest.raises(pyl.DataError, match="site 'x'"):
        pyl.fit(VAE(pyl.Images((1, 8, 8), "levels")), {"x": 255 * bars(4)}, method, progress=False)


def test_settings_of_tables_are_refused() -> None:
    with pytest.raises(pyl.ArgumentError, match="heavy_tails and encoder are settings of tables: got images"):
        VAE(pyl.Images((1, 8, 8)), heavy_tails=True)
    with pytest.warns(pyl.FitWarning, match="A latent vector of 200 numbers for rows of 64 pixels"):
        VAE(pyl.Images((1, 8, 8)), 200)


def test_colours_end_to_end() -> None:
    """64 x 64 pixels in three channels, some of them missing."""
    images = (255 * random(6, 3, 64, 64)).round() / 255
    pair = VAE(pyl.Images((3, 64, 64), "levels"), 4, (16,))
    method = pyl.SVI(num_steps=3, batch_size=4)
    data = {"x": images, "mask": random(6, 3, 64, 64, seed=1) > 0.1}
    fit = pyl.fit(pair, data, method, seed=0, compile=False, progress=False)
    assert pyl.reconstruct(fit)["x"].shape == (6, 3, 64, 64)
    assert pyl.score(fit, num_draws=50).lt(0).all()


def test_images_of_another_shape_are_refused() -> None:
    pair, method = VAE(pyl.Images((1, 8, 8))), pyl.SVI(num_steps=2)
    message = "x is (4, 1, 9, 9), mask (4, 1, 9, 9), expected (N, 1, 8, 8)"
    with pytest.raises(pyl.DataError, match=re.escape(message)):
        pyl.fit(pair, {"x": bars(4, 9)}, method, progress=False)
    with pytest.raises(pyl.DataError, match=re.escape("mask (4, 8, 8), expected (N, 1, 8, 8)")):
        mask = torch.ones(4, 8, 8, dtype=torch.bool)
        pyl.fit(pair, {"x": bars(4), "mask": mask}, method, progress=False)
