"""One level-triggered function for every cause: observe, plan, apply, status.

``observe`` gathers what exists into one frozen value, ``plan`` decides (pure; time is an argument), ``apply`` writes
only what differs, ``status`` reports it once and only when it changed. ``engine`` runs this for the keys of one queue,
never twice at once for the same agent.
"""
