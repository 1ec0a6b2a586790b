from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supportfleet_runtime.agent.classifier import OTHER, KeywordClassifier, KeywordPrediction
from supportfleet_runtime.agent.dialogue import understand
from supportfleet_runtime.agent.entities import MAX_MENTIONS, Mentions, find_orders
from supportfleet_runtime.agent.orders import Item, Order, OrderBook, OrderStatus, sample_order_book
from supportfleet_runtime.agent.rules import RULES, Case, Pending, RuleAnswer
from supportfleet_runtime.agent.settings import AgentSettings

TODAY = date(2026, 11, 21)
BOOK = sample_order_book()
ADA = BOOK.of_customer("cust-1001")
GRACE = BOOK.of_customer("cust-1002")


def order(number: str = "A-1", status: OrderStatus = OrderStatus.DELIVERED, **facts: object) -> Order:
    given = {"customer_id": "c", "placed": -10, "delivered": -5, "items": (Item(name="a tent", price=Decimal(50)),)}
    return Order.model_validate({"number": number.replace("A-", "A-00"), "status": status, **given, **facts})


def ask(intent: str, text: str, own: tuple[Order, ...] = tuple(ADA), **facts: object) -> RuleAnswer | None:
    case = Case(find_orders(text, own), own, TODAY, AgentSettings(), **facts)  # type: ignore[arg-type]
    return RULES[intent](case)


def said(intent: str, text: str, own: tuple[Order, ...] = tuple(ADA), **facts: object) -> str:
    answer = ask(intent, text, own, **facts)
    assert answer
    return answer.text


class TestFindingOrders:
    @pytest.mark.parametrize(
        "text",
        [
            "A-1001",
            "a1001",
            "a 1001",
            "A\u20131001 please",
            "my order is (a-1001).",
            "#1001",
            "order 1001?",
            "order no. 1001",
            "Order number: 1001",
            "it is 1001",
            "Ａ－１００１",  # noqa: RUF001 - full-width, as some keyboards write
        ],
    )
    def test_however_it_is_written(self, text: str) -> None:
        """An own order is found in each of the ways people write its number."""
        assert [found.number for found in find_orders(text, ADA).orders] == ["A-1001"]

    @pytest.mark.parametrize(
        "text", ["in 2024", "5 of 1000", "call 555-1234", "usb300", "A-12", "XA-1001-7", "2026-11-21"]
    )
    def test_other_numbers_are_none(self, text: str) -> None:
        """Years, amounts, telephone numbers and models are not orders."""
        assert not find_orders(text, ADA)

    def test_someone_elses_order_is_unknown(self) -> None:
        """Another customer's number is known by its form, never by its content."""
        assert find_orders("where is A-2001", ADA) == Mentions(unknown=("A-2001",))

    def test_several_keep_their_order_once_each(self) -> None:
        """Each order counts once, in the order of mention."""
        found = find_orders("A-1003 and A-1001, A-1003 again, and #9999", ADA)
        assert [one.number for one in found.orders] == ["A-1003", "A-1001"]
        assert found.unknown == ("9999",)

    @given(st.text())
    def test_any_text_can_be_searched(self, text: str) -> None:
        """No text breaks it, and nobody gets more answers than the limit."""
        found = find_orders(text, ADA)
        assert len(found.orders) + len(found.unknown) <= MAX_MENTIONS

    @given(st.sampled_from([one.number for one in BOOK.orders]), st.text(alphabet=" .,!?()\n", max_size=5))
    def test_only_own_orders_come_out(self, number: str, around: str) -> None:
        """Whatever number is asked for, an order that comes out is the customer's own."""
        found = find_orders(around + number + around, GRACE)
        assert all(one.customer_id == "cust-1002" for one in found.orders)
        assert found.orders or found.unknown == (number,)


class TestOrderQuestions:
    @pytest.mark.parametrize("intent", ["order_status", "refund"])
    def test_the_customer_is_asked_which(self, intent: str) -> None:
        """With several orders and none named, the agent asks and keeps the intent open."""
        answer = ask(intent, "please")
        assert answer
        assert answer.pending == Pending(intent, 1)
        assert "A-1002" in answer.text, "the latest are offered"

    def test_the_only_order_is_meant(self) -> None:
        """Who has one order need not name it."""
        assert "A-2001" in said("order_status", "where is it?", tuple(GRACE))

    def test_asking_ends(self) -> None:
        """After two questions the rule gives up and the language model takes over."""
        assert ask("order_status", "dunno", asked=1)
        assert ask("order_status", "dunno", asked=2) is None

    def test_an_unknown_number_is_told_and_asked_again(self) -> None:
        """A mistyped number is repeated to the customer, with a new question."""
        answer = ask("refund", "A-9999")
        assert answer
        assert "A-9999" in answer.text
        assert answer.pending

    def test_others_orders_are_as_unknown_as_none(self) -> None:
        """The answer to another customer's number equals that to a number that does not exist."""
        assert said("order_status", "A-2001") == said("order_status", "A-9998").replace("9998", "2001")

    def test_without_orders_there_is_nothing_to_ask(self) -> None:
        """A customer without orders is told so, and not asked for ever."""
        answer = ask("order_status", "where is my parcel", ())
        assert answer
        assert answer.pending is None

    def test_several_orders_are_answered_together(self) -> None:
        """Two numbers in a message get two answers in a reply."""
        text = said("order_status", "A-1001 and A-1002")
        assert "A-1001" in text
        assert "A-1002" in text


class TestOrderStatus:
    def test_it_says_when_and_with_whom(self) -> None:
        """A shipped order's carrier, tracking number and day are told."""
        text = said("order_status", "A-1001")
        assert "DHL" in text
        assert "JD014600003876" in text
        assert "23 November 2026" in text

    def test_a_late_order_is_admitted(self) -> None:
        """A parcel that should be there already is called late."""
        text = said("order_status", "A-4001", tuple(BOOK.of_customer("cust-1004")))
        assert "late" in text

    @pytest.mark.parametrize("status", list(OrderStatus))
    @pytest.mark.parametrize("intent", ["order_status", "refund", "address_change"])
    def test_every_status_has_an_answer(self, intent: str, status: OrderStatus) -> None:
        """No status of an order leaves a customer without an answer."""
        assert "A-001" in said(intent, "A-001", (order(status=status),))


class TestRefund:
    def test_within_the_window_the_return_is_explained(self) -> None:
        """The last day, the amount and where to start it; nobody is bothered."""
        answer = ask("refund", "A-1003")
        assert answer
        assert "9 December 2026" in answer.text
        assert "EUR 70.85" in answer.text
        assert not answer.escalate

    @given(st.integers(min_value=0, max_value=60))
    def test_the_window_is_kept_to_the_day(self, days: int) -> None:
        """On the thirtieth day a return is possible, on the next it isn't."""
        text = said("refund", "A-001", (order(delivered=TODAY - timedelta(days=days)),))
        assert ("can be returned" in text) == (days <= 30)

    @given(st.decimals(min_value=1, max_value=500, places=2))
    def test_dear_refunds_go_to_a_person(self, price: Decimal) -> None:
        """Above the limit, and only there, a colleague decides."""
        answer = ask("refund", "A-001", (order(items=[{"name": "x", "price": price}]),))
        assert answer
        assert answer.escalate == (price > 200)

    def test_it_never_claims_to_have_paid(self) -> None:
        """No refund rule says that money was sent, but where the order book says so."""
        for status in OrderStatus:
            text = said("refund", "A-001", (order(status=status),))
            assert ("went back" in text) == (status is OrderStatus.REFUNDED)


class TestOtherRules:
    def test_an_address_can_be_changed_until_it_ships(self) -> None:
        """Processing: where to change it; shipped: that it is too late, and what may help."""
        assert "shop.example.com/account" in said("address_change", "A-1002")
        assert "can't change" in said("address_change", "A-1001")

    def test_an_address_without_an_order(self) -> None:
        """Who has nothing to be sent is shown where the account's address is set."""
        answer = ask("address_change", "I moved", tuple(GRACE))
        assert answer
        assert answer.pending is None
        assert "account" in answer.text

    def test_the_history_lists_all_latest_first(self) -> None:
        """Every order with its items and its total, the newest at the top."""
        lines = said("detailed_history", "everything").splitlines()[1:]
        assert [line.split(",")[0] for line in lines] == ["- A-1002", "- A-1001", "- A-1003", "- A-1004"]
        assert "3 x Wool socks" in lines[1]
        assert "EUR 157.40" in lines[1]

    def test_the_history_of_a_stranger_is_empty(self) -> None:
        """Nobody else's orders are listed."""
        assert "A-" not in said("detailed_history", "everything", ())

    def test_a_person_is_called_once(self) -> None:
        """Asking for a person escalates; asking again says that it is done."""
        first, second = ask("human", "human!"), ask("human", "human!!", escalated=True)
        assert first
        assert second
        assert (first.escalate, second.escalate) == (True, False)

    def test_passwords_are_reset_on_their_page(self) -> None:
        """The reply points to the configured page."""
        assert AgentSettings().rules.password_reset_url in said("password_reset", "forgot it")

    def test_greeting_is_the_configured_one(self) -> None:
        """The agent greets in its own words."""
        assert said("greeting", "hi") == AgentSettings().greeting


class TestUnderstanding:
    def decide(self, text: str, candidate: str, confidence: float, pending: Pending | None = None) -> tuple[str, int]:
        mentions = find_orders(text, ADA)
        meant = understand(text, KeywordPrediction(candidate, confidence), 0.6, mentions, pending)
        return meant.intent, meant.asked

    def test_low_confidence_is_no_intent(self) -> None:
        """Below the threshold nothing is assumed; at it, the candidate is."""
        assert self.decide("hm", "refund", 0.59) == (OTHER, 0)
        assert self.decide("hm", "refund", 0.6) == ("refund", 0)

    @pytest.mark.parametrize("text", ["A-1001", "it's A-1001", "the A-1001 one, thanks", "1001"])
    def test_an_answer_continues_the_question(self, text: str) -> None:
        """An order number after "which order?" keeps the intent, whatever a classifier makes of it."""
        assert self.decide(text, "detailed_history", 0.99, Pending("order_status")) == ("order_status", 1)

    def test_a_new_wish_replaces_the_question(self) -> None:
        """A sentence with an intent of its own is not taken for an answer."""
        text = "actually I would rather like to return A-1003 and get my money back"
        assert self.decide(text, "refund", 0.95, Pending("order_status")) == ("refund", 0)
        assert self.decide("get me a human", "human", 0.95, Pending("order_status")) == ("human", 0)

    def test_an_answer_that_misses_counts(self) -> None:
        """Neither number nor other intent: the question is still open, and was asked once."""
        assert self.decide("I don't know", "refund", 0.2, Pending("order_status", 1)) == ("order_status", 1)


class TestOrderBook:
    def test_a_customer_sees_own_orders_only(self) -> None:
        """Every order of the sample belongs to exactly the customer it is given to."""
        for one in BOOK.orders:
            assert one in BOOK.of_customer(one.customer_id)
        assert not BOOK.of_customer("cust-100")
        assert sum(len(BOOK.of_customer(c)) for c in {o.customer_id for o in BOOK.orders}) == len(BOOK.orders)

    def test_totals_are_exact(self) -> None:
        """Money is decimal: three times 0.10 is 0.30."""
        assert order(items=[{"name": "x", "quantity": 3, "price": "0.10"}]).total == Decimal("0.30")

    def test_delivered_needs_its_day(self) -> None:
        """An order book that would make the agent guess is refused."""
        with pytest.raises(ValueError, match="needs the day"):
            OrderBook.model_validate({"orders": [order(delivered=None).model_dump()]})


class TestKeywords:
    @pytest.mark.parametrize(
        ("text", "intent"),
        [
            ("Where is my order A-1001?", "order_status"),
            ("I forgot my password", "password_reset"),
            ("I want a refund", "refund"),
            ("please change my delivery address", "address_change"),
            ("show me all my orders", "detailed_history"),
            ("let me talk to a human", "human"),
            ("Hello there!", "greeting"),
            ("what is the meaning of life", OTHER),
        ],
    )
    def test_the_obvious_is_understood_without_a_model(self, text: str, intent: str) -> None:
        """The built-in keywords know each intent's plainest sentence."""
        assert KeywordClassifier().classify(text).candidate == intent

    @given(st.text())
    def test_any_text_has_an_intent(self, text: str) -> None:
        """Classifying never fails and stays among the labels."""
        classifier = KeywordClassifier()
        assert classifier.classify(text).candidate in classifier.info.labels
