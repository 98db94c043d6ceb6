"""The numbers of a study as tables: a row an input, layer and head, with a column a statistic."""

import csv
import io
from typing import Any

import numpy as np

from regard.study.folder import PART_INPUTS, Folder, put
from regard.study.results import Study


def has_parquet() -> bool:
    """Tell whether pyarrow is installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def write_tables(folder: Folder) -> None:
    """Write the parts that have no table yet to tables/, which pandas.read_parquet reads as one.

    Columns: input (int32, its number), name, layer, head (int16; null where a layer has one number for all), then
    float32 a statistic; null where there is none.
    """
    import pyarrow
    import pyarrow.parquet

    tables = folder.path / "tables"
    tables.mkdir(exist_ok=True)
    for number in range(folder.num_parts):
        path = tables / f"{number:06}.parquet"
        if path.exists():
            continue
        rows = _columns(folder, number)
        held = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(rows), held)
        put(path, held.getvalue())


def _columns(folder: Folder, number: int) -> dict[str, Any]:
    import pyarrow

    values, first = folder.part(number), number * PART_INPUTS
    places = [(at, head) for at, layer in enumerate(folder.asked["layers"]) for head in range(len(layer["heads"]))]
    at_layers, at_heads = np.array(places, dtype=np.int64).T
    layers = np.array([layer["layer"] for layer in folder.asked["layers"]], np.int16)
    heads = [folder.asked["layers"][at]["heads"][head] for at, head in places]
    inputs = np.arange(first, first + len(values), dtype=np.int32)
    names = np.array(folder.inputs(number)[0], dtype=object)
    chosen = values[:, at_layers, at_heads]
    columns: dict[str, Any] = {
        "input": np.repeat(inputs, len(places)),
        "name": pyarrow.array(np.repeat(names, len(places)), pyarrow.string()).dictionary_encode(),
        "layer": np.tile(layers[at_layers], len(values)),
        "head": pyarrow.array(heads * len(values), pyarrow.int16()),
    }
    for column, statistic in enumerate(folder.asked["statistics"]):
        columns[statistic] = pyarrow.array(chosen[..., column].reshape(-1), from_pandas=True)  # NaN as null
    return columns


def write_heads(study: Study) -> None:
    """Write heads.csv: a row a statistic, layer and head, with count, mean, standard deviation, least and largest.

    A cell is empty where there is no such number.
    """
    held = io.StringIO()
    rows = csv.writer(held, lineterminator="\n")
    rows.writerow(["statistic", "layer", "head", "count", "mean", "sd", "least", "largest"])
    moments = study.moments
    deviations = np.sqrt(moments.variance)
    for column, statistic in enumerate(study.statistics):
        for at, (layer, heads) in enumerate(study.layers):
            for place, head in enumerate(heads):
                where = at, place, column
                numbers = (moments.mean[where], deviations[where], moments.least[where], moments.largest[where])
                told = [f"{number:.7g}" if moments.count[where] and number == number else "" for number in numbers]
                rows.writerow([statistic, layer, head, moments.count[where], *told])
    put(study.path / "heads.csv", held.getvalue().encode())
