"""Judge guesses: how many are right, overall, of each intent, and of what is out of scope."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class IntentFigures:
    """Of one intent: messages that have it, that were given it, and that were rightly given it."""

    messages: int
    guessed: int
    right: int

    @property
    def precision(self) -> float:
        """The share of right ones among those given it."""
        return self.right / self.guessed if self.guessed else 0.0

    @property
    def recall(self) -> float:
        """The share of those that have it that were given it."""
        return self.right / self.messages if self.messages else 0.0


@dataclass(frozen=True)
class Figures:
    """How well messages were understood."""

    intents: dict[str, IntentFigures]
    out_of_scope: str

    @property
    def messages(self) -> int:
        """How many messages were judged."""
        return sum(figures.messages for figures in self.intents.values())

    @property
    def accuracy(self) -> float:
        """The share of messages, out of scope or not, that were rightly understood."""
        return _share(self.intents.values())

    @property
    def in_scope_accuracy(self) -> float | None:
        """The same share among those that are in scope; None without any. Turning one away counts as wrong."""
        inside = [figures for label, figures in self.intents.items() if label != self.out_of_scope]
        return _share(inside) if any(figures.messages for figures in inside) else None

    @property
    def out_of_scope_recall(self) -> float | None:
        """The share of out-of-scope messages that were recognised as such; None without any."""
        figures = self.intents.get(self.out_of_scope)
        return figures.recall if figures and figures.messages else None

    def summary(self) -> dict[str, Any]:
        """The figures as they are kept in ``model.json``."""
        return {
            "messages": self.messages,
            "accuracy": _rounded(self.accuracy),
            "inScopeAccuracy": _rounded(self.in_scope_accuracy),
            "outOfScopeRecall": _rounded(self.out_of_scope_recall),
        }


def evaluate(truth: Sequence[str], guesses: Sequence[str], out_of_scope: str) -> Figures:
    """Compare guesses with the truth."""
    messages, guessed = Counter(truth), Counter(guesses)
    right = Counter(was for was, guess in zip(truth, guesses, strict=True) if was == guess)
    intents = {
        label: IntentFigures(messages[label], guessed[label], right[label]) for label in sorted(messages | guessed)
    }
    return Figures(intents, out_of_scope)


def report(title: str, figures: Figures, *, per_intent: bool) -> str:
    """The figures for people."""
    shares = f"in scope {percent(figures.in_scope_accuracy)}, out of scope {percent(figures.out_of_scope_recall)}"
    lines = [f"{title}: {figures.messages} messages, right {percent(figures.accuracy)} ({shares})"]
    if per_intent:
        width = max(len("intent"), *(len(label) for label in figures.intents))
        lines.append(f"  {'intent':<{width}}  messages  precision   recall")
        lines += [
            f"  {label:<{width}}  {one.messages:>8}  {percent(one.precision):>9}  {percent(one.recall):>7}"
            for label, one in figures.intents.items()
        ]
    return "\n".join(lines)


def percent(share: float | None) -> str:
    """A share for people; a dash for none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def _share(figures: Any) -> float:
    counted = list(figures)
    messages = sum(one.messages for one in counted)
    return sum(one.right for one in counted) / messages if messages else 0.0


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
