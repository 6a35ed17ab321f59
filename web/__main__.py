"""Serve the web page: ``python -m web``. ``pbr ui`` runs it on a laptop, the container image on ECS."""

import argparse

from client.errors import UsageError
from web.server import serve


def main() -> None:
    """Serve the page until the process is stopped."""
    parser = argparse.ArgumentParser(prog="python -m web", description="Serve the web page.")
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on; 0.0.0.0 in a container")
    parser.add_argument("--port", type=int, default=8501, help="port to listen on")
    arguments = parser.parse_args()
    try:
        serve(arguments.address, arguments.port)
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
