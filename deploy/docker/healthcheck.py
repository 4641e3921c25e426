"""The image's health check: exit status 0 if the process answers 200.

The address is the first argument, else MAILROOM_HEALTHCHECK_URL, else `/healthz` of the email service's port.
"""

import http
import http.client
import os
import sys
from urllib.parse import urlsplit


def main() -> int:
    default = f"http://127.0.0.1:{os.environ.get('MAILROOM_EMAIL_PORT', '8101')}/healthz"
    url = urlsplit(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MAILROOM_HEALTHCHECK_URL", default))
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port, timeout=4)
    try:
        connection.request("GET", url.path)
        answer = connection.getresponse()
        print(answer.read(300).decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"{url.geturl()} does not answer: {error}")
        return 1
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
