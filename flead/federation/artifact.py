"""A global model as a file: JSON with one spelling, so that its hash names it."""

import hashlib

import msgspec

from flead.contracts.messages import GlobalModel


def artifact_bytes(model: GlobalModel) -> bytes:
    """Encode a model: UTF-8, keys sorted, no spaces, floats in their shortest exact form."""
    return msgspec.json.encode(model, order="sorted")


def artifact_sha256(artifact: bytes) -> str:
    """SHA-256 of an artifact, as hex."""
    return hashlib.sha256(artifact).hexdigest()
