"""Rehearse a deployment on the embedded cloud: ``make rehearse-deploy``."""

import sys

from tests.rehearsal.rehearsal import RehearsalError, rehearsal
from tests.rehearsal.steps import rehearse


def main() -> None:
    """Run all steps, and print what they check."""
    try:
        with rehearsal() as cloud:
            rehearse(cloud)
    except RehearsalError as error:
        sys.exit(f"rehearse-deploy: {error}")


if __name__ == "__main__":
    main()
