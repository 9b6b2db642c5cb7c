"""Networks whose weights belong to a fit, and the layers that all of ours begin with.

A model and its guide are functions; a network in them must bring weights that each fit draws anew, from
its own seed, and that two fits never share.  So a `Network` holds none: it asks Pyro for them by name.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, final

import pyro
import torch
from torch import Tensor, nn
from torch.func import functional_call

from pyrolatent.seeds import forked


@final
class Network:
    """A network whose weights are parameters of a fit: each fit draws them anew, from its own seed.

    Args:
        name: What its parameters are called, `NAME.KEY` each.
        make: Makes the network.
    """

    def __init__(self, name: str, make: Callable[[], nn.Module]) -> None:
        self.name, self.make = name, make
        with forked():
            self.structure = made(make).to("meta")

    def __call__(self, *inputs: Any) -> Any:
        """Run the network, in a model or a guide."""
        return functional_call(self.structure, self.weights(), inputs)

    def at(self, params: Mapping[str, Tensor], *inputs: Any) -> Any:
        """Run the network with the weights that a fit learnt, as constants."""
        like = torch.zeros(())  # of the dtype and on the device of the fit that runs
        keys = [key for key, _ in self.structure.named_parameters()]
        weights = {key: params[f"{self.name}.{key}"].to(like) for key in keys}
        return functional_call(self.structure, weights, inputs)

    def weights(self) -> dict[str, Tensor]:
        """Return its weights by key, those of the fit that runs."""
        first: dict[str, Tensor] = {}

        def initial(key: str) -> Callable[[], Tensor]:
            def value() -> Tensor:
                if not first:
                    first.update(initial_weights(self.make))
                return first[key]

            return value

        keys = [key for key, _ in self.structure.named_parameters()]
        return {key: pyro.param(f"{self.name}.{key}", initial(key)) for key in keys}


def initial_weights(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Return weights of a new network, drawn from torch's own stream on the host."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    return {key: weight.detach().to(device, dtype) for key, weight in made(make).named_parameters()}


def made(make: Callable[[], nn.Module]) -> nn.Module:
    """Return a new network on the host, whatever the model that runs makes of torch's functions."""
    with torch._C.DisableTorchFunction():
        return make()


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Return linear layers from `sizes[0]` to `sizes[-1]` features, each with a SiLU after it.

    Weights begin so that features keep their size from layer to layer (He et al., 2015): in deep networks
    they would fade otherwise, and a decoder that hears little of its latents learns to do without.
    """
    layers = [(linear(first, second), nn.SiLU()) for first, second in pairwise(sizes)]
    return nn.Sequential(*(part for layer in layers for part in layer))


def linear(first: int, second: int) -> nn.Linear:
    """Return a linear layer whose features are as large as its input, once half of them are cut."""
    layer = nn.Linear(first, second)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
