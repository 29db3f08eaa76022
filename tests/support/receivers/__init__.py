"""Real mail servers that take relay's mail: Debian's packages, unpacked, never installed.

Each listens at 127.0.0.1, with and without TLS and logins (`receiver.Ports`), knows every
local-part of its domains but those that begin with `unknown`, and stores what it took in a maildir.
"""
