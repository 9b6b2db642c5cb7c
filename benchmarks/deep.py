"""A training step of a deep beta-TCVAE, beside the matrix products that it cannot do without.

Run as `python -m benchmarks.deep`, with `PYROLATENT_DATA` (docs/datasets.md): the 30,000 credit-card clients,
23 columns taken as numbers, 512-256-128-64, 5 latents, batches of 256 rows, Adam, one thread. In turns that
rotate:

- `products`: the products of matrices of one step of ours alone, forward and backward, nothing else.
- `thesis`: a loop as the thesis has it, the same layers on the same rows: a `DataLoader`, the objective with
  stratified weights, `loss.item()` at each step.
- `thesis compiled`: the same as its expert would write it: `torch.compile` of the objective and so of its
  backward pass, fused Adam, rows gathered from a tensor in memory, losses kept and not read.
- `ours`: the fit's own loop, all of it, of `models.VAE` with `tc_elbo(2)`, which decides by itself whether to
  compile; `ours compiled` always does.  `ours, elbo` is the same with the plain bound.

Milliseconds a step: medians over rounds.  Compilation is not counted.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import pyrolatent as pyl
from benchmarks.disentanglement import clients
from benchmarks.loops import Loop, compiled_loop, plain_loop
from benchmarks.record import append
from pyrolatent.objectives import Objective
from pyrolatent.total_correlation import stratified_log_weights

LATENT, HIDDEN, BATCH_SIZE, BETA, LR = 5, (64, 128, 256, 512), 256, 2.0, 1e-3
SCALE_FLOOR = 0.05


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pyl.FitWarning)
    frame = clients()
    schema = pyl.infer_schema(frame, kinds=dict.fromkeys(frame, "real"))
    pair, x = pyl.models.VAE(schema, LATENT, HIDDEN), schema.encode(frame)["x"].float()
    contenders: dict[str, Loop] = {
        "products": products(x.shape[1]),
        "thesis": thesis(plain_loop, x),
        "thesis compiled": thesis(compiled_loop, x),
        "ours": ours(pair, frame, pyl.tc_elbo(BETA), "auto"),
        "ours compiled": ours(pair, frame, pyl.tc_elbo(BETA), True),
        "ours, elbo": ours(pair, frame, pyl.elbo(), "auto"),
        "ours, elbo, compiled": ours(pair, frame, pyl.elbo(), True),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(options.rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(round(1e3 * contenders[name](options.steps), 3))
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    row = {"case": "deep", "steps": options.steps, "milliseconds": medians, "all_milliseconds": times}
    print({name: (value, round(value / medians["products"], 2)) for name, value in medians.items()})
    append("deep", [row])


def products(num_columns: int) -> Loop:
    """Return what does the products of a step: outputs, and gradients of weights and of inputs."""
    encoder = [2 * num_columns, *HIDDEN[::-1]]
    shapes = [*pairwise(encoder), (HIDDEN[0], LATENT), (HIDDEN[0], LATENT)]
    shapes += [*pairwise([LATENT, *HIDDEN]), (HIDDEN[-1] + LATENT, num_columns)]
    layers = [(torch.randn(BATCH_SIZE, m), torch.randn(m, n), torch.randn(BATCH_SIZE, n)) for m, n in shapes]

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            for number, (rows, weight, gradient) in enumerate(layers):
                rows @ weight
                rows.T @ gradient
                if number:  # the rows of the table need none
                    gradient @ weight.T
        return (time.perf_counter() - start) / steps

    return run


class Networks(nn.Module):
    """The layers of the thesis, with normal cells."""

    def __init__(self, num_columns: int) -> None:
        super().__init__()
        self.encoder = dense([num_columns, *HIDDEN[::-1], 2 * LATENT])
        self.decoder = dense([LATENT, *HIDDEN, num_columns])
        self.raw_scale = nn.Parameter(torch.zeros(num_columns))


def dense(sizes: Sequence[int]) -> nn.Sequential:
    layers = [(nn.Linear(first, second), nn.LeakyReLU()) for first, second in pairwise(sizes)]
    return nn.Sequential(*[part for layer in layers for part in layer][:-1])


def objective(networks: Networks, num_rows: int) -> Callable[[Tensor], Tensor]:
    """Return the loss of a batch, per row."""
    log_weights = stratified_log_weights(BATCH_SIZE, num_rows)

    def loss(rows: Tensor) -> Tensor:
        mean, log_variance = networks.encoder(rows).chunk(2, 1)
        log_variance = log_variance.clamp(-20, 20)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        scale = SCALE_FLOOR + nn.functional.softplus(networks.raw_scale)
        log_likelihood = log_normal(rows, networks.decoder(z), 2 * scale.log()).sum()
        densities = log_normal(z[:, None], mean, log_variance)
        log_q = log_normal(z, mean, log_variance).sum()
        joint = (log_weights + densities.sum(2)).logsumexp(1).sum()
        single = (log_weights[..., None] + densities).logsumexp(1).sum()
        log_prior = log_normal(z, torch.zeros(()), torch.zeros(())).sum()
        divergence = (log_q - joint) + BETA * (joint - single) + (single - log_prior)
        return (divergence - log_likelihood) / len(rows)

    return loss


def log_normal(value: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    return -0.5 * (log_variance + (value - mean) ** 2 * (-log_variance).exp() + 1.8378770664093453)


def thesis(loop: Callable[..., Loop], x: Tensor) -> Loop:
    torch.manual_seed(0)
    networks = Networks(x.shape[1])
    return loop(networks, objective(networks, len(x)), x, BATCH_SIZE, LR)


def ours(pair: pyl.Pair, frame: Any, loss: Objective, compile: Any) -> Loop:
    def run(steps: int) -> float:
        method = pyl.SVI(loss, num_steps=steps, lr=LR, batch_size=BATCH_SIZE, num_draws=1)
        fit = pyl.fit(pair, frame, method, seed=0, compile=compile, progress=False)
        return fit.info["seconds"]["training"] / steps

    return run


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--steps", type=int, default=2_000, help="steps of a turn")
    return parser.parse_args()


if __name__ == "__main__":
    main()
