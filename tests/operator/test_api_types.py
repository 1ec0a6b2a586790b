"""Quantities mean what Kubernetes means by them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_operator.api.types import quantity


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("1000m", 1),
        ("0.5", "500m"),
        ("1Gi", "1024Mi"),
        ("1k", 1000),
        ("2e3", "2k"),
        ("1E", "1000P"),
        ("1.5Gi", "1536Mi"),
        (".5", "500m"),
    ],
)
def test_different_texts_of_one_number_are_equal(one: str, same: str | int) -> None:
    """Quantities are compared by their number and not by how it is written."""
    assert quantity(one) == quantity(same)


def test_binary_and_decimal_suffixes_differ() -> None:
    """1Gi is more than 1G."""
    assert quantity("1Gi") - quantity("1G") == 73_741_824


@pytest.mark.parametrize("text", ["", "much", "1 Gi", "1gi", "Gi", "1Gib", "-1", "+1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """A text that is no quantity raises, and says what is one."""
    with pytest.raises(ValueError, match="write a number with a suffix such as 500m"):
        quantity(text)


@given(st.integers(0, 10**12))
def test_millis_divide_by_a_thousand(number: int) -> None:
    """No number loses precision on the way."""
    assert quantity(f"{number}m") == Decimal(number) / 1000
