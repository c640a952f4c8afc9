"""The part of a Kubernetes API server that FlinkDeployments need, in place of a real one.

It admits a resource by the schema of Flink's operator, refuses a name that is taken, and removes a
deleted one some time later, as the operator's finalizer has it.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

CRD = Path(__file__).parents[2] / "unit" / "fixtures" / "flinkdeployment_crd.json"
PREFIX = "/apis/flink.apache.org/v1beta1"
LOOKS_BEFORE_GONE = 2

Resource = dict[str, Any]


class KubernetesApi:
    """What a namespace holds.

    Parameters
    ----------
    on_created
        Called with each resource that is admitted, as the operator is.
    """

    def __init__(self, on_created: Callable[[Resource], None]) -> None:
        self.held: dict[str, Resource] = {}
        self.created: list[Resource] = []
        self.going: dict[str, int] = {}
        self._on_created = on_created
        schema = json.loads(CRD.read_text(encoding="utf-8"))["openAPIV3Schema"]
        self._validator = Draft202012Validator(schema)

    def create(self, resource: Resource) -> tuple[int, Resource]:
        name = resource["metadata"]["name"]
        if errors := [error.message for error in self._validator.iter_errors(resource)]:
            return 422, {"message": "; ".join(errors)}
        if name in self.held:
            return 409, {"message": f"{name} already exists"}
        self.held[name] = resource
        self.created.append(resource)
        self._on_created(resource)
        return 201, resource

    def get(self, name: str) -> tuple[int, Resource]:
        if name in self.going:
            self.going[name] -= 1
            if not self.going[name]:
                del self.held[name], self.going[name]
        found = self.held.get(name)
        return (200, found) if found else (404, {"message": f"{name} not found"})

    def delete(self, name: str) -> tuple[int, Resource]:
        if name not in self.held:
            return 404, {"message": f"{name} not found"}
        self.going[name] = LOOKS_BEFORE_GONE
        return 200, {"status": "Success"}


@contextmanager
def serve(api: KubernetesApi) -> Iterator[str]:
    """Serve it on a port of its own, and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == f"{PREFIX}/flinkdeployments":
                self._answer(200, {"items": list(api.held.values())})
            else:
                self._answer(*api.get(self._name()))

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self._answer(*api.create(json.loads(self.rfile.read(length))))

        def do_DELETE(self) -> None:
            self._answer(*api.delete(self._name()))

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

        def _name(self) -> str:
            return self.path.partition("?")[0].rpartition("/")[2]

        def _answer(self, status: int, body: Resource) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
