"""The cases of ``MockConfigFile.json``, run by LocalStack."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.integration.state_machine.test_mocked_cases import *  # noqa: F403
from tests.localstack.conftest import Account


@pytest.fixture(scope="module")
def stack(on_localstack: Account) -> Any:
    return SimpleNamespace(sfn=on_localstack.client("stepfunctions"))
