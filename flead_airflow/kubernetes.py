"""The training job on Kubernetes: its manifest and its connections."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from flead.settings import Settings
from flead_airflow.flink.manifests import Manifest, fill_in

KUBERNETES: Final = "flead_kubernetes"


def template() -> Manifest:
    """Read the manifest that the settings name.

    Raises
    ------
    ValueError
        When there is none, or it is no YAML object.
    """
    path = Path(Settings.from_environment().kubernetes_manifest)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"FLEAD_KUBERNETES_MANIFEST={path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"FLEAD_KUBERNETES_MANIFEST={path} is no manifest")
    return found


def manifest_of(submission: Mapping[str, Any]) -> str:
    """Return the FlinkDeployment of a submission (see `deployments.Submission`) as YAML."""
    return yaml.safe_dump(fill_in(template(), **submission), sort_keys=False)
