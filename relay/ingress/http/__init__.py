"""The HTTP door: `/v1/…` for programs and the command line, `/metrics`, `/livez`, `/readyz`."""
