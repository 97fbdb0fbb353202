"""Which key goes to which origin: the user's own configuration says so, never a study.

A study is a file that may come from anyone. If it could name the address and the key's variable together, it could
send the key anywhere; here it can only name an address, and an address that the user did not list gets no key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from harness.endpoint.transport import origin_of
from harness.errors import ConfigError

ENVIRONMENT = "SPARSEBENCH_ENDPOINTS"
# Capitals only: a key that was pasted in place of a name must not pass for one and be quoted in a message.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class Secret:
    """A key that does not show itself: neither `str` nor `repr` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Keep the value."""
        self._value = value

    def reveal(self) -> str:
        """The value, for the request's header and nothing else."""
        return self._value

    def scrub(self, text: str) -> str:
        """`text` without the value, in case a server quotes it."""
        return text.replace(self._value, "***")

    def __repr__(self) -> str:
        return "Secret(***)"


def endpoints_file() -> Path:
    """Where bindings are kept: `sparsebench/endpoints.yaml` in the user's configuration folder."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "sparsebench" / "endpoints.yaml"


def bindings() -> dict[str, str]:
    """Origin to name of the environment variable that holds its key, as the user configured it.

    `SPARSEBENCH_ENDPOINTS` (pairs `ORIGIN=VARIABLE`, apart by blanks or commas) is read in place of the file, if set.

    Raises:
        ConfigError: An entry is no origin and variable; what was written in place of a name is not quoted, because it
            may be a key.
    """
    given = os.environ.get(ENVIRONMENT)
    if given is None:
        return _checked(_read_file(endpoints_file()), str(endpoints_file()))
    pairs = [part.rpartition("=") for part in re.split(r"[\s,]+", given) if part]
    return _checked({origin: variable for origin, _, variable in pairs}, ENVIRONMENT)


def key_for(base_url: str) -> Secret | None:
    """The key that the user bound to the origin of a base URL; None where nothing is bound to it.

    Raises:
        ConfigError: The base URL is none, the configuration is wrong, or the variable that it names is not set or
            holds what no header can carry.
    """
    origin = origin_of(base_url)
    variable = bindings().get(origin)
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"the key of {origin} is bound to {variable}, which is not set; export {variable}")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ConfigError(f"{variable} holds no key (blanks, line breaks or other than ASCII); set it to the key alone")
    return Secret(value)


def binding_hint(base_url: str) -> str:
    """The line that binds a key to the origin of a base URL."""
    return f"add `{origin_of(base_url)}: NAME_OF_A_VARIABLE` to {endpoints_file()} and export that variable"


def _read_file(path: Path) -> Mapping[object, object]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError):
        raise ConfigError(
            f"{path} cannot be read as YAML; write lines such as `https://host: NAME_OF_A_VARIABLE`"
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is no mapping; write lines such as `https://host: NAME_OF_A_VARIABLE`")
    return data


def _checked(found: Mapping[object, object], where: str) -> dict[str, str]:
    checked = {}
    for url, variable in found.items():
        if not isinstance(url, str) or not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
            raise ConfigError(
                f"{where}: an entry is not `ORIGIN: VARIABLE`; name the environment variable, never the key itself"
            )
        checked[origin_of(url)] = variable
    return checked
