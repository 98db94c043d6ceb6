"""Pictures of attention and relevance as matplotlib figures, for notebooks and the command line.

Functions return a `matplotlib.figure.Figure` and touch no global state; `save` or `figure.savefig(path)` writes it.
"""

from regard.pictures.arcs import token_arcs
from regard.pictures.beside import side_by_side
from regard.pictures.charts import head_chart
from regard.pictures.files import save, to_bytes
from regard.pictures.layers import relevance_layers
from regard.pictures.lettering import MissingFont
from regard.pictures.matches import match_lines
from regard.pictures.overlays import head_grid, overlay, query_maps
from regard.pictures.page import Page, write_page
from regard.pictures.pairs import pair_matrix, token_matrix
from regard.pictures.photos import open_photo, patch_map
from regard.pictures.relevance import relevance_map, relevance_text
from regard.pictures.sheets import SheetPhoto, contact_sheet
from regard.pictures.style import PRINT, SCREEN, Drawing, Style, make_style
from regard.pictures.texts import token_heads, token_heatmap
from regard.pictures.words import word_maps
from regard.scales import Scale
from regard.tables import Table, in_words, tables
from regard.views import spread_rows

__all__ = [
    "PRINT",
    "SCREEN",
    "Drawing",
    "MissingFont",
    "Page",
    "Scale",
    "SheetPhoto",
    "Style",
    "Table",
    "contact_sheet",
    "head_chart",
    "head_grid",
    "in_words",
    "make_style",
    "match_lines",
    "open_photo",
    "overlay",
    "pair_matrix",
    "patch_map",
    "query_maps",
    "relevance_layers",
    "relevance_map",
    "relevance_text",
    "save",
    "side_by_side",
    "spread_rows",
    "tables",
    "to_bytes",
    "token_arcs",
    "token_heads",
    "token_heatmap",
    "token_matrix",
    "word_maps",
    "write_page",
]
