"""An answer while a language model says it, for who listens meanwhile.

A draft is a state and no queue: the text of now. Who looks at it compares it with what they saw before, so a slow
listener has nothing kept for them, and whoever writes it waits for nobody. It may turn out to be void, by a failure or
because the model goes on otherwise; the answer that is stored is the truth.
"""

from __future__ import annotations

from collections.abc import Callable


class Draft:
    """What is said so far for a task. ``changed`` is called whenever that is something else."""

    def __init__(self, task_id: str, turn: int, changed: Callable[[], None]) -> None:
        self.task_id = task_id
        self.turn = turn
        self.text = ""
        self._changed = changed

    def tell(self, text: str) -> None:
        """This is what is said so far, all of it."""
        if text != self.text:
            self.text = text
            self._changed()

    def void(self) -> None:
        """What was said doesn't hold."""
        self.tell("")
