import subprocess
import sys

import pytest

from tests.conftest import ROOT

MODULES = sorted(path.stem for path in (ROOT / "functions/contracts").glob("*.py") if not path.stem.startswith("__"))


@pytest.mark.parametrize("sdk", ["boto3", "botocore", "aws_lambda_powertools"])
def test_contracts_do_not_import_an_aws_sdk(sdk: str) -> None:
    imports = ", ".join(f"functions.contracts.{module}" for module in MODULES)
    code = f"import sys, {imports}; sys.exit({sdk!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
