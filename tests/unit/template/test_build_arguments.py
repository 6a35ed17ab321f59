"""Build arguments of the container image, as ``sam build`` resolves them."""

import re

import pytest
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_functions_of_nested_stacks_are_built_as_those_of_the_main_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    stacks, _ = SamLocalStackProvider.get_stacks(
        str(ROOT / "template.yaml"), parameter_overrides={"Build": "1.4.0-abc"}, global_parameter_overrides={}
    )
    arguments = {
        function.full_path: function.metadata["DockerBuildArgs"] for function in SamFunctionProvider(stacks).get_all()
    }
    assert "BulkStack/BulkFunction" in arguments
    assert {tuple(sorted(given.items())) for given in arguments.values()} == {
        (("CUSTOM_MODELS", ""), ("MODELS", "u2netp"), ("MODEL_MIRROR", ""), ("PBR_BUILD", "1.4.0-abc"))
    }


@pytest.mark.parametrize("target", ["cpu", "gpu", "web"])
def test_every_image_carries_its_build(target: str) -> None:
    [stage] = re.findall(rf"^FROM \w+ AS {target}\n(.*?)(?=^FROM|\Z)", DOCKERFILE, flags=re.DOTALL | re.MULTILINE)
    assert "ARG PBR_BUILD=\nENV PBR_BUILD=$PBR_BUILD\nLABEL org.opencontainers.image.version=$PBR_BUILD\n" in stage


def test_no_template_overrides_the_build_of_an_image() -> None:
    """Not even with the parameter: the image of a worker can be another than that of the functions."""
    for template in [ROOT / "template.yaml", *(ROOT / "infrastructure").glob("*.yaml")]:
        for line in template.read_text().splitlines():
            assert "PBR_BUILD" not in line or line == "        PBR_BUILD: !Ref Build"
