"""The mail providers of a local stack beside SES: the simulator stands where each of them stands."""

import json
import secrets
import threading
from base64 import b64encode
from dataclasses import asdict, dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from deploy.local.site import HOST, Site, write_private
from deploy.processes import FROM_ADDRESS

EVERY = ("ses", "sendgrid", "mailgun", "smtp")
"""In the order in which they get mail."""

PER_SECOND = 500
"""Recipients a second that each of them takes: mail goes to another one because one fails, not because it is busy."""

WEBHOOK_KEYS = {"sendgrid": "SIMULATOR_SENDGRID_WEBHOOK_KEY", "mailgun": "SIMULATOR_MAILGUN_WEBHOOK_KEY"}
"""Provider → the simulator's variable with the key that signs its reports; command lines are everybody's to read."""

_DOMAIN = FROM_ADDRESS.partition("@")[2]
_making = threading.Lock()


@dataclass(frozen=True, slots=True)
class WebhookKeys:
    """What a stack's webhooks are signed with: an EC private key in PEM, and a string."""

    sendgrid: str
    mailgun: str

    @property
    def sendgrid_public(self) -> str:
        """The key that SendGrid shows to whoever verifies."""
        public = load_pem_private_key(self.sendgrid.encode(), None).public_key()
        return b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def webhook_keys(site: Site) -> WebhookKeys:
    """The stack's keys, made the first time."""
    with _making:
        path = site.webhook_keys_file
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            write_private(path, json.dumps(asdict(WebhookKeys(pem, secrets.token_urlsafe(32))), indent=2))
        return WebhookKeys(**json.loads(path.read_text()))


def service_environment(site: Site) -> dict[str, str]:
    """Settings by which the email service sends through all of them and hears their webhooks."""
    keys, url = webhook_keys(site), site.url("simulator")
    return {
        "MAILROOM_PROVIDERS": ",".join(EVERY),
        "SENDGRID_API_KEY": "SG.simulated",
        "MAILROOM_SENDGRID_URL": url,
        "MAILROOM_SENDGRID_WEBHOOK_KEYS": keys.sendgrid_public,
        "MAILROOM_SENDGRID_MAX_SEND_RATE": str(PER_SECOND),
        "MAILGUN_API_KEY": "simulated",
        "MAILGUN_DOMAIN": _DOMAIN,
        "MAILROOM_MAILGUN_URL": url,
        "MAILROOM_MAILGUN_WEBHOOK_KEYS": keys.mailgun,
        "MAILROOM_MAILGUN_MAX_SEND_RATE": str(PER_SECOND),
        "MAILROOM_SMTP_HOST": HOST,
        "MAILROOM_SMTP_PORT": str(site.ports["simulator-smtp"]),
        "MAILROOM_SMTP_TLS": "off",  # its certificate is one of its own making
        "MAILROOM_SMTP_BOUNCE_DOMAIN": f"bounces.{_DOMAIN}",
        "MAILROOM_SMTP_MAX_SEND_RATE": str(PER_SECOND),
    }


def simulator_options(site: Site) -> list[str]:
    """Further arguments of the simulator on this stack. Where there is every provider, it reports to the gateway, as
    they would.
    """
    if not site.every_provider:
        return []
    return ["--webhooks", f"{site.url('gateway')}/api/webhooks", "--max-send-rate", str(PER_SECOND)]


def simulator_environment(site: Site) -> dict[str, str]:
    """The keys that it signs with; command lines are everybody's to read."""
    if not site.every_provider:
        return {}
    keys = webhook_keys(site)
    return {"SIMULATOR_SENDGRID_WEBHOOK_KEY": keys.sendgrid, "SIMULATOR_MAILGUN_WEBHOOK_KEY": keys.mailgun}
