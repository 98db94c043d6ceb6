"""Writes schemas.json anew: what operators' CustomResourceDefinitions in build/crds say of the fields that are used.

`python -m tests.deploy.make_schemas`, with helm, for what the chart makes. Each schema has the names of all fields, so
that a misspelt one is found, and of those that some manifest uses all that is said; a field that nobody uses may be
anything. Without descriptions: the definitions have megabytes, this some kilobytes.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.test_kubernetes import DEPLOY, SCHEMAS, VARIANTS, Manifest, documents, is_own, key_of, render
from tests.processes import ROOT

CRDS = ROOT / "build" / "crds"
_LICENCE = (
    "Derived from CustomResourceDefinitions of KServe (github.com/kserve/kserve), KubeRay (ray-project/kuberay), KEDA "
    "(kedacore/keda) and the Prometheus operator (prometheus-operator/prometheus-operator; CoreOS Project, Copyright "
    "2015 CoreOS, Inc; this product includes software developed at CoreOS, Inc., http://www.coreos.com/) as of August "
    "2026, all under the Apache License 2.0; changed by tests/deploy/make_schemas.py: cut down, and closed."
)
_KEPT = ("type", "required", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
         "anyOf", "oneOf", "allOf", "not")  # fmt: skip


def definitions(folder: Path) -> dict[str, Any]:
    """Schemas of the kinds in a folder, by group, version and kind."""
    found = dict[str, Any]()
    for file in sorted(folder.glob("*.yaml")):
        for one in yaml.load_all(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            for version in one["spec"]["versions"] if one else ():
                key = f"{one['spec']['group']}/{version['name']} {one['spec']['names']['kind']}"
                found[key] = version["schema"]["openAPIV3Schema"]
    return found


def cut(schema: Any, used: list[Any]) -> dict[str, Any]:
    """Leave of a schema what is said of the fields that some values have, and the names of the others."""
    if not used:
        return {}
    kept = {name: schema[name] for name in _KEPT if name in schema}
    if "properties" in schema:
        objects = [value for value in used if isinstance(value, dict)]
        kept["properties"] = {
            name: cut(inner, [value[name] for value in objects if name in value])
            for name, inner in schema["properties"].items()
        }
        kept["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    elif isinstance(schema.get("additionalProperties"), dict):
        inner = [one for value in used if isinstance(value, dict) for one in value.values()]
        kept["additionalProperties"] = cut(schema["additionalProperties"], inner)
    if "items" in schema:
        kept["items"] = cut(schema["items"], [one for value in used if isinstance(value, list) for one in value])
    return kept


def manifests() -> list[Manifest]:
    """All that there are of kinds that Kubernetes has not itself."""
    files = (*sorted((DEPLOY / "kserve").glob("*.yaml")), DEPLOY / "ray" / "rayservice.yaml")
    found = [documents(file) for file in files] + [render(*values) for values in VARIANTS.values()]
    return [one for some in found for one in some.values() if not is_own(one)]


def main() -> None:
    """Write the file."""
    used = dict[str, list[Manifest]]()
    for manifest in manifests():
        used.setdefault(key_of(manifest), []).append(manifest)
    known = definitions(CRDS)
    schemas = {key: cut(known[key], some) for key, some in sorted(used.items())}
    SCHEMAS.write_text(json.dumps({"licence": _LICENCE, "kinds": schemas}, indent=1) + "\n")


if __name__ == "__main__":
    main()
