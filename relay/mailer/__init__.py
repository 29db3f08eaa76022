"""An SMTP client for programs: command by command, or a whole message in one call.

    from relay.mailer import PasswordAuth, send_mail

    send_mail("mail.example.org:587", "me@example.org", ["ann@example.net"], message,
              auth=PasswordAuth("me", "secret", "mail.example.org"))

    async with await AsyncSmtpClient.connect("mail.example.org:25") as smtp:
        await smtp.starttls()
        refused = await smtp.send("me@example.org", ["ann@example.net"], message)

`SmtpClient` has the same methods without `await`. It talks to one server directly: nothing is
queued, resolved or sent again; for that there is `relay.Relay`.
"""

from relay.mailer.auth import Auth, PasswordAuth, Server, TokenAuth
from relay.mailer.client import AsyncSmtpClient
from relay.mailer.data_writer import DataWriter
from relay.mailer.dialogue import CommandRefused
from relay.mailer.shortcuts import async_send_mail, send_mail
from relay.mailer.sync import SmtpClient, SyncDataWriter
from relay.smtp.sasl import Mechanism

__all__ = [
    "AsyncSmtpClient",
    "Auth",
    "CommandRefused",
    "DataWriter",
    "Mechanism",
    "PasswordAuth",
    "Server",
    "SmtpClient",
    "SyncDataWriter",
    "TokenAuth",
    "async_send_mail",
    "send_mail",
]
