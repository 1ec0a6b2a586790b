"""The circuit breaker, checked against a model of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from supportfleet_runtime.agent.breaker import FAILURES, PAUSE_SECONDS, CircuitBreaker, Permit, State
from supportfleet_runtime.agent.guard import MODEL_FAILURES, SERVICE_FAILURES, Guard
from supportfleet_runtime.errors import ProviderError


@dataclass
class Call:
    """A call under way: its permit, and the spell of the breaker's life that it began in."""

    permit: Permit
    spell: int
    is_probe: bool
    ended: bool = False


@dataclass
class Expected:
    """What the breaker must be: as the specification says it, in plain words."""

    state: State = State.CLOSED
    spell: int = 0
    """Counts the states there were: what a call of an earlier spell says is not heard."""
    failures: int = 0
    opened: float = 0.0
    probe: Call | None = None
    changes: list[State] = field(default_factory=list)

    def become(self, state: State) -> None:
        self.state, self.failures, self.probe = state, 0, None
        self.spell += 1
        self.changes.append(state)


class BreakerMachine(RuleBasedStateMachine):
    """Calls begin, end and are dropped in any order, while time passes."""

    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.changes: list[State] = []
        self.breaker = CircuitBreaker(lambda: self.now, self.changes.append)
        self.expected = Expected()

    @rule(seconds=st.one_of(st.floats(0, 10), st.sampled_from([PAUSE_SECONDS - 1, PAUSE_SECONDS, 500.0])))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=calls, number=st.integers(2, 8))
    def begin_many(self, number: int) -> Any:
        return multiple(*(self.begin_one() for _ in range(number)))

    @rule(target=calls)
    def begin(self) -> Call | None:
        return self.begin_one()

    def begin_one(self) -> Call | None:
        expected = self.expected
        if expected.state is State.OPEN and self.now - expected.opened >= PAUSE_SECONDS:
            expected.become(State.HALF_OPEN)
        admitted = expected.state is State.CLOSED or (expected.state is State.HALF_OPEN and expected.probe is None)
        permit = self.breaker.admit()
        assert (permit is not None) == admitted
        if permit is None:
            return None
        call = Call(permit, expected.spell, is_probe=expected.state is State.HALF_OPEN)
        if call.is_probe:
            expected.probe = call
        return call

    @rule(call=calls, failed=st.booleans())
    def end(self, call: Call | None, *, failed: bool) -> None:
        self.finish(call, failed=failed)

    def finish(self, call: Call | None, *, failed: bool) -> None:
        if call is None or call.ended:
            return
        call.ended = True
        if failed:
            call.permit.failed()
        else:
            call.permit.succeeded()
        expected = self.expected
        if call.spell != expected.spell:
            return
        expected.failures = expected.failures + 1 if failed else 0
        if failed and (call.is_probe or expected.failures == FAILURES):
            expected.become(State.OPEN)
            expected.opened = self.now
        elif call.is_probe:
            expected.become(State.CLOSED)

    @rule(call=calls)
    def drop(self, call: Call | None) -> None:
        if call is None or call.ended:
            return
        call.ended = True
        call.permit.dropped()
        if self.expected.probe is call:
            self.expected.probe = None

    @rule(number=st.integers(1, 7))
    def a_row_of_failures(self, number: int) -> None:
        for _ in range(number):
            self.finish(self.begin_one(), failed=True)

    @invariant()
    def it_is_what_it_must_be(self) -> None:
        assert self.breaker.state is self.expected.state
        assert self.changes == self.expected.changes


def test_the_breaker_is_its_specification() -> None:
    """Five failures in a row open it, for 60 s; then one probe at a time decides; late results change nothing."""
    run_state_machine_as_test(BreakerMachine, settings=settings(max_examples=200, stateful_step_count=40))


def test_the_way_through_all_states() -> None:
    """Closed, open, half-open, open again, half-open, closed: as it is drawn."""
    now = 0.0
    seen: list[State] = []
    breaker = CircuitBreaker(lambda: now, seen.append)
    for _ in range(FAILURES):
        permit = breaker.admit()
        assert permit
        permit.failed()
    assert breaker.admit() is None
    for outcome in ("failed", "succeeded"):
        now += PAUSE_SECONDS
        probe = breaker.admit()
        assert probe
        assert breaker.admit() is None, "one probe at a time"
        getattr(probe, outcome)()
    assert seen == [State.OPEN, State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_late_results_change_nothing() -> None:
    """Calls from before the breaker opened neither end the pause, nor lengthen it, nor decide for the probe."""
    now = 0.0
    breaker = CircuitBreaker(lambda: now)
    permits = [breaker.admit() for _ in range(2 * FAILURES + 1)]
    for permit in permits[:FAILURES]:
        assert permit
        permit.failed()
    now = PAUSE_SECONDS / 2
    for permit in permits[FAILURES:-1]:
        assert permit
        permit.failed()
    now = PAUSE_SECONDS
    assert breaker.admit()
    late = permits[-1]
    assert late
    late.succeeded()
    assert breaker.state is State.HALF_OPEN
    assert breaker.admit() is None


def test_a_fallback_is_not_tried_where_the_service_is_down() -> None:
    """Models share their service's breaker, and no other."""
    service = CircuitBreaker(lambda: 0.0)
    first, second = (Guard(service, CircuitBreaker(lambda: 0.0)) for _ in range(2))
    for reason in sorted(MODEL_FAILURES) * 2:
        if first.model.state is State.CLOSED:
            first.admit().failed(reason)
    assert [first.model.state, service.state] == [State.OPEN, State.CLOSED]
    for reason in sorted(SERVICE_FAILURES):
        second.admit().failed(reason)
    assert service.state is State.OPEN
    assert second.model.state is State.CLOSED
    for guard in (first, second):
        try:
            guard.admit()
        except ProviderError as error:
            refused = error.reason
        assert refused == "circuit_open"


def test_a_refused_model_leaves_its_service_free() -> None:
    """Where the model's breaker refuses a call, the service's probe is not used up."""
    now = 0.0
    service, model = CircuitBreaker(lambda: now), CircuitBreaker(lambda: now, pause=1000)
    for breaker in (service, model):
        for _ in range(FAILURES):
            permit = breaker.admit()
            assert permit
            permit.failed()
    now = PAUSE_SECONDS
    for _ in range(3):
        refused = False
        try:
            Guard(service, model).admit()
        except ProviderError:
            refused = True
        assert refused
    probe = service.admit()
    assert probe
    probe.succeeded()
    assert service.state is State.CLOSED
