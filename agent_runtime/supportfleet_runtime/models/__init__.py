"""Model artifacts: what they are, how they are published, and how they are fetched so that nothing unverified is run.

An artifact is a folder of files with a ``manifest.json`` that lists each with its size and SHA-256. The SHA-256 of the
manifest's own bytes is the artifact's *digest*: whoever pins the digest pins every byte. In a bucket it lies at
``<uri>/<version>/``, on a volume at ``$MODEL_DIR/versions/<digest>/``; ``$MODEL_DIR/current`` points to the one in use.

===============  ==============================================================
``errors``       the one exception, its reasons and their exit codes
``paths``        which file names an artifact may have
``manifest``     the manifest: parse, render, limits
``artifact``     an artifact in a folder: write, verify, read
``cache``        the volume: lock, temporary folders, atomic switch, pruning
``settings``     what the environment says about where models come from
``store``        the object store; the only module that knows obstore
``download``     from the store to a folder, verified while it streams
``sync``         all of it in order
``publish``      the way back: from a folder into the store
``channel``      names that point to a version, and are moved
===============  ==============================================================
"""
