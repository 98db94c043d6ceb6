"""Checks that a grid of cells covers an image: rows, columns and the size of a cell against the image's edges."""


def check_grid(
    field: str, cells: tuple[int, int], cell_size: int, edges: tuple[int, int], *, overhangs: bool = False
) -> None:
    """Refuse a grid that ends elsewhere than the image.

    Args:
        field: Names it in messages.
        cells: Rows and columns.
        cell_size: Edge of a cell in pixels.
        edges: Height and width of the image in pixels.
        overhangs: Whether the last cells may reach over the image's edge, or leave a part of a cell free.

    Raises:
        ValueError: Says which number is wrong.
    """
    for name, count, edge in zip(("rows", "cols"), cells, edges, strict=True):
        fewest, most = edge // cell_size, -(-edge // cell_size)
        if overhangs and fewest <= count <= most:
            continue
        if count * cell_size != edge:
            either = f"{fewest} or {most}" if overhangs else "a size that divides it"
            raise ValueError(
                f"{field}.{name}: {count} cells of {cell_size} pixels on {edge} pixels of an image; "
                f"expected {fewest if fewest == most else either}"
            )
