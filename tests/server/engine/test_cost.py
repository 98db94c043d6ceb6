import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.cost import CostModel, Sample, fit_costs

SIZES = ((1, 8), (8, 8), (1, 64), (4, 64), (2, 128))


def measure(model: CostModel, sizes: tuple[tuple[int, int], ...] = SIZES) -> list[Sample]:
    """What a machine that follows a model would show."""
    return [Sample(rows, length, model.seconds(rows, length)) for rows, length in sizes]


@given(st.floats(1e-4, 1e-2), st.floats(1e-6, 1e-3), st.floats(1e-9, 1e-6))
def test_a_fit_finds_the_model_behind_the_measurements(run: float, token: float, pair: float) -> None:
    """What it foretells for another size is right to 1 %, but for the handing over, 0.3 ms."""
    truth = CostModel(run, token, pair)
    found = fit_costs(measure(truth))
    assert found.seconds(16, 32) - 0.0003 == pytest.approx(truth.seconds(16, 32), rel=0.01)


def test_no_part_is_negative_where_measurements_would_have_it_so() -> None:
    """Runs that get cheaper with every row are noise."""
    found = fit_costs([Sample(1, 8, 0.02), Sample(8, 8, 0.01), Sample(1, 64, 0.015)])
    assert min(found.run_seconds, found.token_seconds, found.pair_seconds) >= 0


def test_a_single_measurement_is_all_tokens() -> None:
    """A network so slow that one run must do: two rows cost twice as much."""
    found = fit_costs([Sample(1, 100, 2.0)])
    assert found.seconds(2, 100) == pytest.approx(4.0, abs=0.001)


def test_images_have_one_length_and_a_fixed_part() -> None:
    """One and four rows tell the fixed part from that of a row."""
    found = fit_costs([Sample(1, 257, 0.015), Sample(4, 257, 0.045)])
    assert found.seconds(2, 257) == pytest.approx(0.025, abs=0.001)
    assert found.run_seconds == pytest.approx(0.005, abs=0.001)
