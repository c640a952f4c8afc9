"""JSON Schema in words."""

from collections.abc import Mapping
from typing import Any

from reference.markdown import code, codes

NO_BREAK = "\N{NO-BREAK SPACE}"
BOUNDS = {
    "minimum": f"≥{NO_BREAK}{{}}",
    "exclusiveMinimum": f">{NO_BREAK}{{}}",
    "maximum": f"≤{NO_BREAK}{{}}",
    "exclusiveMaximum": f"<{NO_BREAK}{{}}",
    "minLength": "from {} character on",
    "maxLength": "up to {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
}
MAX_INT64 = 2**63 - 1


def resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a reference points at, or the schema itself."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return definitions[name] if name else schema


def describe(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Say which values a schema admits; a struct is named and linked to its heading."""
    target = resolved(schema, definitions)
    if "anyOf" in schema:
        return " or ".join(describe(each, definitions) for each in schema["anyOf"])
    if "enum" in target:
        return codes(map(str, target["enum"]))
    if "properties" in target:
        return f"[{target['title']}](#{target['title'].lower()})"
    return f"{_kind(target, definitions)}{_bounds(target)}"


def _kind(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    kind = schema.get("type", "anything")
    if kind == "array" and "prefixItems" in schema:
        return f"pair of {describe(schema['prefixItems'][0], definitions)}"
    if kind == "array":
        return f"array of {describe(schema['items'], definitions)}"
    if kind == "object":
        values = schema.get("additionalProperties") or {}
        return f"object: name → {describe(values, definitions)}" if values else "object"
    if kind == "null":
        return code("null")
    return str(kind)


def _bounds(schema: Mapping[str, Any]) -> str:
    limits = [
        words.format(f"{schema[name]:g}" if isinstance(schema[name], float) else schema[name])
        for name, words in BOUNDS.items()
        if name in schema and schema[name] != MAX_INT64
    ]
    return f" {', '.join(limits)}" if limits else ""
