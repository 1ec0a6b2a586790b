"""The pre-deployment checklist: every item is tried out for real, and says PASS, FAIL or ERROR and why.

PASS and FAIL are findings. ERROR means that the check could not be made (no address of a running agent was given, the
database is out of reach), so nothing is known: a gate that lets only PASS through is shut by it too.

A check is an asynchronous function of a ``Subject``, which holds all it may look at, in a module of its own; ``runner``
lists them. None leaves anything behind, and none repeats a secret.
"""
