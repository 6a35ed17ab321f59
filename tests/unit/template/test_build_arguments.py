"""Build arguments of the container image, as ``sam build`` resolves them."""

import pytest
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

from tests.conftest import ROOT


def test_functions_of_nested_stacks_are_built_as_those_of_the_main_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    stacks, _ = SamLocalStackProvider.get_stacks(
        str(ROOT / "template.yaml"), parameter_overrides={}, global_parameter_overrides={}
    )
    arguments = {
        function.full_path: function.metadata["DockerBuildArgs"] for function in SamFunctionProvider(stacks).get_all()
    }
    assert "BulkStack/BulkFunction" in arguments
    assert {tuple(sorted(given.items())) for given in arguments.values()} == {
        (("CUSTOM_MODELS", ""), ("MODELS", "u2netp"), ("MODEL_MIRROR", ""))
    }
