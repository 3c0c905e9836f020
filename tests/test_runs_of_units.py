"""Speech units: runs, and units beyond a table."""

import pytest
import torch

from avlib.errors import ParameterError
from avlib.features import check_units, deduplicate, run_lengths


def test_runs():
    units = torch.tensor([7, 7, 3, 7, 7, 7])
    runs, lengths = run_lengths(units)
    assert (runs.tolist(), lengths.tolist()) == ([7, 3, 7], [2, 1, 3])
    assert torch.equal(runs.repeat_interleave(lengths), units)
    assert deduplicate(units).tolist() == [7, 3, 7] and deduplicate(units[:0]).tolist() == []


def test_a_unit_beyond_the_table_is_named():
    check_units(torch.tensor([[0, 999]]), 1000)
    check_units(torch.zeros(0, dtype=torch.long), 1000)
    with pytest.raises(ParameterError, match=r"units: 1000 at position 2; expected 0 to 999, .* K = 1000"):
        check_units(torch.tensor([0, 5, 1000, -1]), 1000)
    with pytest.raises(ParameterError, match="-1 at line 1"):
        check_units(torch.tensor([-1]), 1000, lambda index: f"line {index + 1}")
    with pytest.raises(ParameterError, match="unit_offset=4"):  # the other convention: 4 to 1003
        check_units(torch.tensor([4, 1003]), 1000)
