"""Where settings come from: variables, and for secrets files that variables name, as Kubernetes and Docker mount them.

Both are sources of pydantic-settings over an environment that is given, so that reading it is a function of its
argument. What can't be read is gathered as problems; the other values are still checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from supportfleet_runtime.errors import Problem

MAX_SECRET_FILE_BYTES: Final = 64 * 1024


def is_secret(info: FieldInfo) -> bool:
    """Whether a setting is one whose value is never shown, and may be given by file."""
    return info.annotation == SecretStr | None


def expectation(info: FieldInfo) -> str:
    """What a valid value looks like."""
    extra = info.json_schema_extra
    return str(extra["expects"]) if isinstance(extra, dict) else "a valid value"


class Variables(PydanticBaseSettingsSource):
    """A setting's variable is its name in capitals; an empty one counts as unset."""

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings)
        self._environ = environ

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - pydantic-settings'
        """The variable's value, if it has one."""
        value = self._environ.get(field_name.upper(), "")
        return value if value.strip() else None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """All values that are set."""
        found = {name: self.get_field_value(info, name)[0] for name, info in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class SecretFiles(Variables):
    """A secret's file is named by its variable with ``_FILE``. ``problems`` takes what is wrong with one."""

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str], problems: list[Problem]) -> None:
        super().__init__(settings, environ)
        self._problems = problems

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The file's content, if the variable names one that can be read."""
        variable = f"{field_name.upper()}_FILE"
        path = self._environ.get(variable, "")
        if not is_secret(field) or not path.strip():
            return None, field_name, False
        value = None
        if self._environ.get(field_name.upper(), "").strip():
            self._refuse(variable, f"{field_name.upper()} is set as well", "set one of the two")
        else:
            value = self._read(variable, Path(path), expectation(field))
        return value, field_name, False

    def _read(self, variable: str, path: Path, expects: str) -> str | None:
        try:
            with path.open("rb") as file:
                value = file.read(MAX_SECRET_FILE_BYTES).decode().strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self._refuse(variable, f"{path} can't be read: {reason}", "name a readable file")
            return None
        if not value:
            self._refuse(variable, f"{path} is empty", f"put into it {expects}")
        return value or None

    def _refuse(self, variable: str, message: str, remedy: str) -> None:
        self._problems.append(Problem(variable, message, remedy))
