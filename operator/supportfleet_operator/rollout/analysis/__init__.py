"""Analysis: from the text that pods serve at ``/metrics`` to a verdict on the canary.

``reading`` parses, ``window`` adds up what pods counted since the measurement began, ``figures`` makes rates of it,
``verdict`` compares them with their limits, and ``measure`` is all of that in order.

A measurement goes on until there are enough samples for every figure, and then a new one begins, so that each request
is judged once and good times don't hide bad ones. Every doubt (a pod that doesn't answer, figures that can't be, a
counter that started again) makes samples fewer, never better or worse.
"""
