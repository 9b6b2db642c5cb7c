"""How often each outcome of discrete sites is to be expected, given all else: the E-step of EM.

The log-likelihood of a model is a function of the log-probabilities of its sites at all values of the
discrete ones, and its derivative by one of these is the posterior probability of the values that it
belongs to.  So one backward pass through the sum gives the weights of every site, whatever the discrete
sites depend on: those of a mixture, or of each pair of neighbours in a hidden Markov model.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import grad_and_value

from pyrolatent.capture.elimination import eliminate, log_product
from pyrolatent.capture.enumeration import factor_graph, log_sum_product
from pyrolatent.capture.joint import split_by_sum
from pyrolatent.capture.messages import Message, log_prob_sum

Weights = dict[str, Tensor]


def expected(messages: Mapping[str, Message]) -> tuple[Tensor, Weights]:
    """Return the log-likelihood `()` in nats, and how often each cell of each site counts.

    Args:
        messages: The sites of a run with all values of discrete sites at once, but for latents that
            are not part of the likelihood.

    Returns:
        Weights are `(*values, *batch)`, to be broadcast to the log-probabilities of the site's cells.
    """
    summed, plain = split_by_sum(messages)
    weights = {name: weight_of(message) for name, message in plain.items()}
    known = sum((log_prob_sum(message) for message in plain.values()), start=torch.zeros(()))
    if not summed:
        return torch.as_tensor(known), weights
    factors, variables = factor_graph(summed)

    def log_sum(log_probs: Weights) -> Tensor:
        used = [replace(factor, log_prob=log_probs[name]) for name, factor in factors.items()]
        left, _ = eliminate(used, variables)
        return log_product(left)

    shares, total = grad_and_value(log_sum)({name: factor.log_prob for name, factor in factors.items()})
    return known + total, weights | shares


def log_total(messages: Mapping[str, Message]) -> Tensor:
    """Return the log-probability `()` of all sites in nats, discrete ones summed out."""
    summed, plain = split_by_sum(messages)
    known = sum((log_prob_sum(message) for message in plain.values()), start=torch.zeros(()))
    return known + log_sum_product(summed) if summed else torch.as_tensor(known)


def weight_of(message: Message) -> Tensor:
    """Return how often the cells of a site count that no discrete one moves: its scale."""
    return torch.as_tensor(message["scale"], dtype=torch.get_default_dtype())
