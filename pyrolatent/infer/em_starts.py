"""Where EM begins: at clusters of the rows of a mixture, else where random points have climbed to.

Clusters are those of k-means++ (Arthur and Vassilvitskii 2007) with Lloyd's steps, on the standardised
numbers of a row; where rows tell their discrete sites, that counts for more.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from pyrolatent.capture.sites import random_start
from pyrolatent.errors import ModelError
from pyrolatent.exponential import CategoricalFamily
from pyrolatent.infer.em_steps import MixtureSteps, Steps
from pyrolatent.infer.start import adam_ascent
from pyrolatent.seeds import generator, numpy_generator

ATTEMPTS = 100
LLOYD = 50  # steps
OF_CLUSTER = 4.0  # nats that a row's own cluster has more than others at the start


def cluster_starts(steps: MixtureSteps, number: int, seed: int) -> Tensor:
    """Return latents `(B, R)` of at most `number` different starts of a mixture."""
    different = first_shares(evidence(steps), features_of(steps), number, seed)
    random = generator(seed, "starts", device=different.device)
    position = random_start((1, steps.latents.density.dim), random, different.dtype)
    first = steps.latents.of_positions(position).expand(len(different), -1)
    return steps.from_shares(first, different)


def first_shares(told: Tensor, features: Tensor, number: int, seed: int) -> Tensor:
    """Return first probabilities `(B, C, N)` of the discrete sites, at most `number` different ones.

    Args:
        told: What rows tell of their discrete sites `(C, N)`, in nats.
        features: Standardised numbers of rows `(N, F)`.
        number: Of starts.
        seed: Of the clusters.
    """
    shares = [told.softmax(0)] if told.any() else []
    grouped = features.shape[1] > 0 and len(features.unique(dim=0)) > len(told)
    if grouped:
        found = (clusters(features, len(told), seed, attempt) for attempt in range(number))
        shares += [(told + OF_CLUSTER * labels.T).softmax(0) for labels in found if labels is not None]
    random = generator(seed, "shares", device=told.device)
    while not grouped and len(shares) < number:
        uneven = torch.rand(told.shape, generator=random, dtype=told.dtype, device=told.device)
        shares.append((told + OF_CLUSTER * uneven).softmax(0))
    return torch.stack(shares)[:number].unique(dim=0)


def clusters(features: Tensor, number: int, seed: int, attempt: int) -> Tensor | None:
    """Return the cluster of each row of `features (N, F)` as `(N, C)`, in the order of the first feature."""
    from scipy.cluster.vq import ClusterError, kmeans2  # whose import changes the filters of warnings

    random = numpy_generator(seed, "clusters", attempt)
    try:
        centres, labels = kmeans2(
            features.cpu().numpy(), number, iter=LLOYD, minit="++", missing="raise", rng=random
        )
    except ClusterError:
        return None
    rank = torch.from_numpy(centres[:, 0]).argsort().argsort()
    return one_hot(rank[torch.from_numpy(labels).long()], number).to(features)


def evidence(steps: MixtureSteps) -> Tensor:
    """Return what rows tell of their discrete sites whatever the latents are `(C, N)`, in nats."""
    rows, size = steps.rows, steps.latents.layout.size
    told = rows.design.new_zeros(rows.num_values, rows.design.shape[1])
    for part, block in zip(rows.parts, rows.blocks, strict=True):
        if block.fixed is None and all(bool((source.index >= size).all()) for source in part.sources):
            natural = part.family.natural(*part.parameters(rows.design.new_zeros(1, size)))
            told += natural[0][block.cells].flatten(1) @ rows.design[rows.place[block.columns]]
    return told


def features_of(steps: MixtureSteps) -> Tensor:
    """Return standardised numbers of rows that depend on discrete sites `(N, F)`."""
    rows, found = steps.rows, []
    for part, block in zip(rows.parts, rows.blocks, strict=True):
        varies = bool((block.cells != block.cells[:1]).any())
        latent = any(bool((source.index < steps.latents.layout.size).any()) for source in part.sources)
        if block.fixed is None and varies and latent:
            statistics = rows.design[rows.place[block.columns]].unflatten(0, (block.cells.shape[1], -1))
            kept = statistics if isinstance(part.family, CategoricalFamily) else statistics[:, 1:2]
            found.append(kept.flatten(0, 1))
    if not found:
        return rows.design.new_zeros(rows.design.shape[1], 0)
    numbers = torch.cat(found).mT
    centred = numbers - numbers.mean(0)
    spread = centred.square().mean(0).sqrt()
    return centred / torch.where(spread > 0, spread, 1.0)


def climbed_starts(steps: Steps, number: int, seed: int) -> Tensor:
    """Return latents `(B, R)` of `number` random starts that have climbed a little.

    Raises:
        ModelError: No finite likelihood in 100 attempts.
    """
    density = steps.latents.density
    random = generator(seed, "starts", device=density.device)
    for _ in range(ATTEMPTS):
        position = random_start((number, density.dim), random, density.dtype)
        value, gradient = steps.log_likelihood(position)
        possible = value.isfinite() & gradient.isfinite().all(-1)
        if possible.any():
            return steps.latents.of_positions(adam_ascent(steps.log_likelihood, position[possible]))
    raise ModelError(
        "the likelihood of the model is not finite at the start",
        where=f"{ATTEMPTS} times {number} random starts",
        remedy="look at the data, the scales and the supports of its sites",
    )
