"""The schema's history, for Alembic.

Rules for a new version: old pods must keep working while new ones roll out, so a version only adds; what is to go is
removed by a later release, when nothing uses it any more. ``HEAD`` names the latest (a test holds it to be true), so
that a process which finds the schema up to date need not load Alembic.
"""

from typing import Final

HEAD: Final = "0009"
VERSION_TABLE: Final = "supportfleet_schema_version"
