"""Networks of the VAE family; their forward returns a distribution."""

from pyrolatent.nn.encoders import EmbeddingEncoder, NormalHead, RowEncoder
from pyrolatent.nn.heads import RowDecoder
from pyrolatent.nn.network import Network, mlp

__all__ = ["EmbeddingEncoder", "Network", "NormalHead", "RowDecoder", "RowEncoder", "mlp"]
