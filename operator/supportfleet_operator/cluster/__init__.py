"""The only package that talks to the API server.

``connection`` finds the server and authenticates (``kubernetes.aio``), ``client`` sends requests with plain dicts,
``cache`` holds what watches bring, ``watch`` keeps a cache in step, ``lease`` decides who leads, ``recorder`` posts
Events. Nothing here knows what a SupportAgent means.
"""
