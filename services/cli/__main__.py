"""`python -m services.cli`."""

from services.cli.app import app
from services.kit.pipes import until_nobody_reads

if __name__ == "__main__":
    with until_nobody_reads():
        app(prog_name="mailroom")
