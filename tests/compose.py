"""Reads docker-compose.yaml as Compose does: anchors merged, variables put in.

https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from flead.stack.home import CHECKOUT

FILE = CHECKOUT / "docker-compose.yaml"
VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\})")


def read(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with the variables of an environment put in."""
    return _interpolated(yaml.safe_load(FILE.read_text(encoding="utf-8")), environ)


def _interpolated(node: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolated(value, environ) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolated(value, environ) for value in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        return environ.get(match["name"]) or match["default"] or ""

    return VARIABLE.sub(value, node)
