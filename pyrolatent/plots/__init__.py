"""Pictures of tables, latents, images and training.

Each function takes plain data and returns a matplotlib `Figure` that pyplot does not know: save it by
`figure.savefig("picture.png")` or, in a notebook after `%matplotlib inline`, leave it as the last line of a
cell.  matplotlib is slow to import, so `import pyrolatent` leaves this package out: `from pyrolatent import
plots`.
"""

from pyrolatent.plots.histograms import histograms_over, marginal_histograms
from pyrolatent.plots.images import image_grid
from pyrolatent.plots.lines import lines_over, traversal_lines
from pyrolatent.plots.matrices import information_map
from pyrolatent.plots.scatter import latent_scatter
from pyrolatent.plots.structure import correlation_maps, low_rank_maps
from pyrolatent.plots.training import training_curves

__all__ = [
    "correlation_maps",
    "histograms_over",
    "image_grid",
    "information_map",
    "latent_scatter",
    "lines_over",
    "low_rank_maps",
    "marginal_histograms",
    "training_curves",
    "traversal_lines",
]
