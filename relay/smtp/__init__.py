"""The client side of SMTP (RFC 5321) without I/O, clock or opinion: bytes in, bytes and events out.

Reading order: `transaction` (values), `client` (the machine and its tables), then `reply_reader`,
`command`, `content`, `extensions`, `sasl`.
"""
