"""What the language model is shown of a conversation: as much of the latest turns as the limits allow. Pure."""

from __future__ import annotations

from supportfleet_runtime.agent.providers.port import Prompt, Utterance
from supportfleet_runtime.agent.settings import AgentSettings
from supportfleet_runtime.agent.turn import Exchange, Turn


def build_prompt(turn: Turn, settings: AgentSettings) -> Prompt:
    """The system prompt, the latest exchanges within the limits, and the message to answer."""
    limits = settings.history
    kept: list[Exchange] = []
    left = limits.max_characters
    for exchange in reversed(turn.history[-limits.max_turns :] if limits.max_turns else ()):
        left -= len(exchange.text) + len(exchange.reply or "")
        if left < 0:
            break
        kept.append(exchange)
    utterances: list[Utterance] = []
    for exchange in reversed(kept):
        utterances.append(Utterance("user", exchange.text))
        if exchange.reply is not None:
            utterances.append(Utterance("assistant", exchange.reply))
    utterances.append(Utterance("user", turn.text))
    return Prompt(
        system=f"{settings.system_prompt}\n\nThe company is {settings.company}.", utterances=tuple(utterances)
    )
