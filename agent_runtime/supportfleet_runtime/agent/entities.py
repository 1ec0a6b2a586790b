"""Finding order numbers in what a customer wrote.

People write ``A-1001`` as "a1001", "A 1001", "#1001" or "order no. 1001", with whatever dash their telephone likes.
A number is taken for an order's where it has the whole form, or where it says that it is one, or where it is exactly
the digits of one of the customer's own orders.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from supportfleet_runtime.agent.orders import Order

MAX_MENTIONS = 5

_DASHES = {ord(dash): "-" for dash in "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"}
_WHOLE = re.compile(r"(?<![A-Za-z0-9-])([A-Za-z]{1,3})([- ]?)([0-9]{3,8})(?![0-9A-Za-z-])")
_NAMED = re.compile(
    r"(?:#|\border(?:\s+(?:no\.?|nr\.?|number|id))?\s*[:#]?)\s*([0-9]{3,8})(?![0-9A-Za-z-])", re.IGNORECASE
)
_DIGITS = re.compile(r"(?<![0-9A-Za-z-])([0-9]{3,8})(?![0-9A-Za-z-])")


@dataclass(frozen=True)
class Mentions:
    """The orders a text speaks of, and the numbers in it that are none of this customer's."""

    orders: tuple[Order, ...] = ()
    unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.orders or self.unknown)


def find_orders(text: str, own: Sequence[Order]) -> Mentions:
    """What ``text`` says about which orders are meant, first mentioned first."""
    text = unicodedata.normalize("NFKC", text).translate(_DASHES)
    by_number = {order.number: order for order in own}
    by_digits = {order.number.partition("-")[2]: order for order in own}
    found: dict[str, Order | None] = {}
    for letters, separator, digits in _WHOLE.findall(text):
        number = f"{letters.upper()}-{digits}"
        written_as_one = separator == "-" or (not separator and len(letters) == 1)  # "in 2024" and "usb300" are none
        if number in by_number or written_as_one:
            found[number] = by_number.get(number)
    for digits in _NAMED.findall(text):
        order = by_digits.get(digits)
        found[order.number if order else digits] = order
    for digits in _DIGITS.findall(text):
        if order := by_digits.get(digits):
            found[order.number] = order
    mentions = list(found.items())[:MAX_MENTIONS]
    return Mentions(
        orders=tuple(order for _, order in mentions if order),
        unknown=tuple(number for number, order in mentions if order is None),
    )


def words_beside_numbers(text: str) -> int:
    """How much a text says beside its numbers: an answer such as "it's A-1001" says little."""
    return len(re.findall(r"[^\W\d_]{2,}", _WHOLE.sub(" ", text.translate(_DASHES))))
