"""The simulated internet: a DNS server and MX hosts on loopback, with scripted behaviour.

Reading order: `keywords` (what a name means), `faults` and `profiles` (what can be switched at run
time), `scenario` (the decision), `zone` and `dns`, `receiver` and `dialogue`, `receipts`, `server`.
It never leaves 127.0.0.0/8 and ::1, needs no Redis, and speaks no RFC beyond SMTP and DNS.
"""
