"""Who answers what the rules can't: Claude, or a script where there is no key."""

from supportfleet_runtime.agent.providers.port import Completion, Prompt, Provider, Utterance

__all__ = ["Completion", "Prompt", "Provider", "Utterance"]
