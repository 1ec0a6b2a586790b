"""E-mail: the reply, to one address, handed to a mail server.

A message is built from values that are no header's syntax (the address was checked when it was taken in, the subject is
one line), and its Message-ID is made of the callback's id: a mail that is sent again after a crash is the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from supportfleet_runtime.callbacks.settings import MailServer, StartTls, is_mail_address
from supportfleet_runtime.errors import DeliveryError

TOTAL_SECONDS: Final = 20.0
MAX_SUBJECT: Final = 150
_START_TLS: Final = {StartTls.REQUIRED: True, StartTls.OPTIONAL: None, StartTls.NEVER: False}


class Mails:
    """Sends mails from ``sender``; ``subject`` may change with the agent's configuration."""

    def __init__(
        self,
        server: MailServer,
        sender: str,
        subject: Callable[[], str],
        *,
        now: Callable[[], datetime],
        total: float = TOTAL_SECONDS,
    ) -> None:
        self._server = server
        self._sender = sender
        self._subject = subject
        self._now = now
        self._total = total

    async def send(self, id_: str, address: str, text: str) -> None:
        """Hand one mail in, or raise ``DeliveryError``."""
        import aiosmtplib  # noqa: PLC0415 - only where mail is configured

        if not is_mail_address(address):
            raise DeliveryError("address_not_allowed", is_final=True)
        server = self._server
        try:
            await aiosmtplib.send(
                self.message(id_, address, text),
                sender=self._sender,
                recipients=[address],
                hostname=server.host,
                port=server.port,
                username=server.user,
                password=server.password,
                use_tls=server.tls,
                start_tls=_START_TLS[server.start_tls],
                timeout=self._total,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [one.code for one in error.recipients]
            raise DeliveryError("recipient_refused", is_final=all(map(_is_final, codes))) from error
        except aiosmtplib.SMTPDataError as error:
            raise DeliveryError(f"smtp_{error.code}", is_final=_is_final(error.code)) from error
        except aiosmtplib.SMTPResponseException as error:  # of the connection or the sender: another's to mend
            raise DeliveryError(f"smtp_{error.code}") from error
        except (TimeoutError, aiosmtplib.SMTPTimeoutError) as error:
            raise DeliveryError("timeout") from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise DeliveryError("unreachable") from error

    def message(self, id_: str, address: str, text: str) -> EmailMessage:
        """The mail."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = address
        message["Subject"] = " ".join(self._subject().split())[:MAX_SUBJECT]
        message["Date"] = format_datetime(self._now())
        message["Message-ID"] = f"<{id_}@{self._sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-replied"  # so that no other machine answers
        message.set_content(text, charset="utf-8", cte="quoted-printable")
        return message


def _is_final(code: int) -> bool:
    return code >= 500  # noqa: PLR2004 - SMTP's permanent failures
