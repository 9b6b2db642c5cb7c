"""Networks of the VAE family; their forward returns a distribution."""

from pyrolatent.nn.encoders import EmbeddingEncoder, NormalHead, RowEncoder
from pyrolatent.nn.heads import RowDecoder
from pyrolatent.nn.images import ImageDecoder, ImageEncoder
from pyrolatent.nn.network import Network, mlp
from pyrolatent.nn.rows import Encoder, Rows, decoder_of, encoder_of, expected, observed, seen_in

__all__ = [
    "EmbeddingEncoder",
    "Encoder",
    "ImageDecoder",
    "ImageEncoder",
    "Network",
    "NormalHead",
    "RowDecoder",
    "RowEncoder",
    "Rows",
    "decoder_of",
    "encoder_of",
    "expected",
    "mlp",
    "observed",
    "seen_in",
]
