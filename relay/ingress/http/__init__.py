"""The HTTP door: `/v1/…` for programs and the command line, `/metrics`, `/livez`, `/readyz`."""

from relay.ingress.http.server import run

__all__ = ["run"]
