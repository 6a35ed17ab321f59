"""Run the embedded cloud in the foreground: ``python -m embedded_cloud --port 5555``."""

import argparse
import signal
import threading
from pathlib import Path

from embedded_cloud.cloud import EmbeddedCloud


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m embedded_cloud", description=__doc__)
    parser.add_argument("--port", type=int, default=5555, help="Port of the AWS endpoint; 0 for any free port.")
    parser.add_argument("--api-port", type=int, default=0, help="Port of the HTTP API; 0 for any free port.")
    parser.add_argument("--template", type=Path, default=Path("template.yaml"), help="SAM template to deploy.")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="Template parameter; repeatable."
    )
    parser.add_argument("--mock-config", type=Path, help="MockConfigFile.json of AWS Step Functions Local")
    parser.add_argument("--empty", action="store_true", help="Start without a stack, e.g. to run sam deploy.")
    arguments = parser.parse_args()
    parameters = dict(parameter.split("=", 1) for parameter in arguments.parameter)

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    cloud = EmbeddedCloud(
        arguments.template,
        parameters,
        arguments.port,
        arguments.mock_config,
        api_port=arguments.api_port,
        is_empty=arguments.empty,
    )
    with cloud:
        for (what, why), logical_ids in cloud.skipped_by_reason().items():
            print(f"# Ignored: {what} ({', '.join(logical_ids)}): {why}")
        for name, value in cloud.outputs.items():
            print(f"# {name}: {value}")
        for name, value in cloud.environment.items():
            print(f"export {name}={value}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
