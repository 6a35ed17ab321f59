"""``make deploy`` with fakes of aws, docker and sam on the PATH, which record their arguments."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from samcli.cli.types import CfnParameterOverridesType, CfnTags
from samtranslator.yaml_helper import yaml_parse

from infrastructure import deploy
from tests.conftest import ROOT

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
REPOSITORY = f"{REGISTRY}/precision-background-remover-images-repository-1a2b3c"

BUILD = "1.4.0-abc"

DOCKER = """#!/bin/sh
[ "$1" = info ] || [ "$2" = version ] || echo "docker $*" >>"$LOG"
case "$1 $2" in
    "info "*) cat "$STATE/driver" ;;
    "login "*) cat >"$STATE/password" ;;
    "push "*) touch "$STATE/tag-${2##*:}" ;;
    "buildx version") [ ! -f "$STATE/no-buildx" ] || { echo "docker: unknown command: docker buildx" >&2; exit 1; } ;;
    "buildx build")
        for word; do case "$before" in --tag) touch "$STATE/tag-${word##*:}" ;; esac; before=$word; done ;;
esac
"""
SAM = """#!/bin/sh
echo "sam $*" >>"$LOG"
[ "$1" != "$FAILS" ] || exit 3
if [ "$1" = build ]; then
    mkdir -p .aws-sam/build/BulkStack
    functions='{SegmentFunction: {Properties: {ImageUri: "segmentfunction:built"}}, Nothing: {Type: "x"}}'
    for folder in .aws-sam/build .aws-sam/build/BulkStack; do echo "Resources: $functions" >$folder/template.yaml; done
fi
"""
AWS = """#!/bin/sh
echo "$*" >>"$STATE/calls"
case "$1 $2" in
    "cloudformation describe-stacks")
        [ -f "$STATE/$4.json" ] || { echo "ValidationError: Stack with id x does not exist" >&2; exit 254; }
        cat "$STATE/$4.json" ;;
    "cloudformation deploy") echo "aws $*" >>"$LOG"
        echo '[{"OutputKey": "RepositoryUri", "OutputValue": "'"$REPOSITORY"'"}]' >"$STATE/$4.json" ;;
    "ecr get-login-password") echo secret ;;
    "ecr describe-images")
        for word; do case "$word" in imageTag=*) tag=${word#imageTag=} ;; esac; done
        [ -f "$STATE/tag-$tag" ] || { echo "ImageNotFoundException" >&2; exit 254; }
        echo "sha256:${tag%%-*}	$(cat "$STATE/media-type")" ;;
    *) echo "AccessDenied: $*" >&2; exit 255 ;;
esac
"""


class Tools:
    """A PATH with the fakes, their state, and their log."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.log = folder / "log"
        for name in ("template.yaml", "samconfig.toml"):
            (folder / name).write_text((ROOT / name).read_text())
        for name, script in {"docker": DOCKER, "sam": SAM, "aws": AWS}.items():
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
        (folder / "driver").write_text('[["Backing Filesystem","extfs"]]')
        (folder / "media-type").write_text("application/vnd.docker.distribution.manifest.v2+json")
        variables = {
            "REPOSITORY": REPOSITORY,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "LOG": str(self.log),
            "STATE": str(folder),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    def deploy(self, *arguments: str, fails: str = "") -> tuple[list[list[str]], str]:
        """Return the commands that were run, and the error; empty for none."""
        self.log.write_text("")
        self.monkeypatch.setenv("FAILS", fails)
        try:
            deploy.main(["--project", str(self.folder), "--build", BUILD, *arguments])
        except SystemExit as error:
            return self.commands(), str(error)
        return self.commands(), ""

    def commands(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()]

    def stack_has(self, parameters: Mapping[str, str]) -> None:
        listed = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
        (self.folder / "precision-background-remover.json").write_text(json.dumps(listed))

    @property
    def functions_run(self) -> set[str]:
        """The images of the functions in the built templates."""
        built = [yaml_parse(path.read_text()) for path in (self.folder / ".aws-sam").rglob("template.yaml")]
        assert len(built) == 2
        return {template["Resources"]["SegmentFunction"]["Properties"]["ImageUri"] for template in built}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    return Tools(tmp_path, monkeypatch)


def parameters(command: list[str]) -> dict[str, str]:
    pairs = command[command.index("--parameter-overrides") + 1 :]
    return dict(pair.split("=", 1) for pair in pairs)


def test_every_part_runs_the_image_of_this_build_after_one_deployment(
    tools: Tools, capsys: pytest.CaptureFixture[str]
) -> None:
    commands, error = tools.deploy("--parameters", "SegmentationHost=ecs", "--add", "endpoint", "--yes")
    assert not error
    assert [command[:2] for command in commands] == [
        ["aws", "cloudformation"],
        ["sam", "build"],
        ["docker", "login"],
        ["docker", "tag"],
        ["docker", "push"],
        ["sam", "deploy"],
    ]
    assert commands[0][2:5] == ["deploy", "--stack-name", "precision-background-remover-images"]
    assert commands[2][-1] == REGISTRY
    assert commands[3][2] == "segmentfunction:built"
    assert commands[3][3] == commands[4][2]
    assert commands[3][3].startswith(f"{REPOSITORY}:cpu-{BUILD}-")
    assert tools.functions_run == {commands[3][3]}
    assert parameters(commands[1])["Build"] == BUILD
    assert commands[5][commands[5].index("--image-repository") + 1] == REPOSITORY
    assert parameters(commands[5]) == {
        "SegmentationHost": "ecs",
        "Build": BUILD,
        "WorkerImageUri": f"{REPOSITORY}@sha256:cpu",
        "SageMakerImageUri": f"{REPOSITORY}@sha256:cpu",
    }
    assert "--no-confirm-changeset" in commands[5]
    assert (tools.folder / "password").read_text() == "secret"
    assert "secret" not in capsys.readouterr().out


def test_a_second_deployment_pushes_nothing_and_has_the_same_parameters(tools: Tools) -> None:
    first, _ = tools.deploy("--parameters", "SegmentationHost=ecs SegmentationCapacity=GPU")
    assert ["docker", "buildx", "build", "--target", "gpu"] in [command[:5] for command in first]
    functions_run = tools.functions_run
    second, error = tools.deploy("--parameters", "SegmentationHost=ecs SegmentationCapacity=GPU")
    assert not error
    assert [command[:2] for command in second] == [["aws", "cloudformation"], ["sam", "build"], ["sam", "deploy"]]
    assert second[-1] == first[-1]
    assert tools.functions_run == functions_run


def test_a_part_of_the_deployed_stack_gets_the_new_image(tools: Tools) -> None:
    tools.stack_has(
        {"WorkerImageUri": f"{REPOSITORY}@sha256:old", "SegmentationCapacity": "GPU", "DefaultModel": "u2net"}
    )
    commands, error = tools.deploy()
    assert not error
    assert parameters(commands[1])["DefaultModel"] == "u2net"
    assert "--build-arg MODELS=u2net " in " ".join(
        next(one for one in commands if one[:3] == ["docker", "buildx", "build"])
    )
    assert parameters(commands[-1]) == {"Build": BUILD, "WorkerImageUri": f"{REPOSITORY}@sha256:gpu"}


@pytest.mark.parametrize("uri", ["", f"{REPOSITORY}:mine"])
def test_an_image_that_the_caller_names_stays(tools: Tools, uri: str) -> None:
    tools.stack_has({"WorkerImageUri": f"{REPOSITORY}@sha256:old"})
    commands, _ = tools.deploy("--parameters", f"WorkerImageUri={uri}")
    assert parameters(commands[-1])["WorkerImageUri"].strip('"') == uri


@pytest.mark.parametrize("parameters", ["SegmentationHost=ecs SegmentationCapacity=GPU", "SegmentationHost=ecs"])
def test_pushed_images_have_the_architecture_and_the_manifest_that_sagemaker_needs(
    tools: Tools, parameters: str
) -> None:
    (tools.folder / "driver").write_text('[["driver-type","io.containerd.snapshotter.v1"]]')
    commands, error = tools.deploy("--parameters", parameters)
    assert not error
    assert not [command for command in commands if command[:2] in (["docker", "tag"], ["docker", "push"])]
    builds = [command for command in commands if command[1] == "buildx"]
    assert builds
    for build in builds:
        assert build[build.index("--platform") :][:3] == ["--platform", "linux/amd64", "--provenance=false"]
        assert "type=registry,oci-mediatypes=false" in build


def test_an_endpoint_is_not_deployed_with_a_manifest_that_sagemaker_rejects(tools: Tools) -> None:
    (tools.folder / "media-type").write_text("application/vnd.oci.image.manifest.v1+json")
    commands, error = tools.deploy("--parameters", "SegmentationHost=sagemaker")
    assert "application/vnd.oci.image.manifest.v1+json" in error and f"BUILD={BUILD}-2" in error
    assert ["sam", "deploy"] not in [command[:2] for command in commands]
    commands, error = tools.deploy("--parameters", "SegmentationHost=ecs")
    assert not error


def test_a_missing_buildx_has_a_remedy(tools: Tools) -> None:
    (tools.folder / "no-buildx").touch()
    commands, error = tools.deploy("--parameters", "SegmentationHost=ecs SegmentationCapacity=GPU")
    assert "Install Docker Buildx" in error
    assert ["sam", "deploy"] not in [command[:2] for command in commands]


def test_the_profile_of_samconfig_is_that_of_every_call(tools: Tools) -> None:
    config = (ROOT / "samconfig.toml").read_text()
    table = "[default.global.parameters]\n"
    (tools.folder / "samconfig.toml").write_text(config.replace(table, f'{table}profile = "work"\n'))
    _, error = tools.deploy("--parameters", "SegmentationHost=ecs")
    assert not error
    calls = (tools.folder / "calls").read_text().splitlines()
    assert len(calls) >= 6 and all("--region eu-west-1 --profile work" in call for call in calls)


def test_images_go_to_the_registry_that_ecr_names(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPOSITORY", f"{REGISTRY}.cn/images")
    commands, error = tools.deploy("--parameters", "SegmentationHost=ecs")
    assert not error
    assert parameters(commands[-1])["WorkerImageUri"].startswith(f"{REGISTRY}.cn/")
    assert ["docker", "login", f"{REGISTRY}.cn"] in [[*command[:2], command[-1]] for command in commands]


def test_nothing_is_deployed_after_a_failed_build(tools: Tools) -> None:
    commands, error = tools.deploy("--parameters", "SegmentationHost=ecs", fails="build")
    assert [command[:2] for command in commands] == [["aws", "cloudformation"], ["sam", "build"]]
    assert error.startswith("deploy: sam build failed with exit status 3")


def test_a_dry_run_prints_the_commands_and_runs_none(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    commands, error = tools.deploy("--parameters", "SegmentationHost=ecs", "--dry-run")
    assert (commands, error) == ([], "")
    printed = [shlex.split(line)[1:3] for line in capsys.readouterr().out.splitlines()]
    assert printed[:2] == [["aws", "cloudformation"], ["sam", "build"]]
    assert printed[-1] == ["sam", "deploy"]
    assert ["docker", "push"] in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-env", "tests"], "samconfig.toml has no environment 'tests'. Use one of default, prod"),
        (["--parameters", "SegmentatonHost=ecs"], "'SegmentatonHost=ecs' names no parameter of template.yaml"),
        (["--parameters", "SegmentationHost"], "SegmentationHost has no value. Use SegmentationHost=VALUE."),
        (["--parameters", "SegmentationHost=foo"], "it must be one of lambda, ecs, sagemaker."),
        (["--parameters", "SegmentMemory=1000"], "SegmentMemory=1000 is not allowed: it must be one of 3008, 4096"),
        (["--parameters", "WorkerMaxCount=two"], "it must be a number"),
        (["--parameters", "BulkConcurrency=0"], "BulkConcurrency=0 is not allowed: it must be"),
        (["--parameters", "GpuInstanceType=g5g.xlarge"], "it must be an instance type of the family g4dn"),
        (["--parameters", "ModelBucket=a_b"], "it must match ^$|"),
        (["--add", "workers"], "Unknown part 'workers'. Use one of worker, endpoint, web."),
        (["--build", "1.4+abc"], "Invalid build '1.4+abc'"),
    ],
)
def test_bad_input_is_rejected_before_any_command(tools: Tools, arguments: list[str], message: str) -> None:
    commands, error = tools.deploy(*arguments)
    assert commands == []
    assert message in error


@pytest.mark.parametrize(("arguments", "longest"), [([], 57), (["--add", "endpoint"], 42)])
def test_a_stack_name_that_is_too_long_is_rejected_before_the_build(
    tools: Tools, arguments: list[str], longest: int
) -> None:
    config = (ROOT / "samconfig.toml").read_text()
    errors = []
    for length in (longest, longest + 1):
        name = f'"{"n" * length}"'
        (tools.folder / "samconfig.toml").write_text(config.replace('"precision-background-remover"', name))
        errors.append(tools.deploy(*arguments)[1])
    assert tools.commands() == []
    assert errors[0] == ""
    assert f"it must have at most {longest} characters" in errors[1]


def test_the_defaults_of_the_template_are_allowed() -> None:
    declared = deploy.defaults(ROOT)
    assert len(declared) > 50
    deploy.check({name: value for name, value in declared.items() if value}, ROOT)


def chosen(add: tuple[str, ...] = (), **values: str) -> dict[str, str]:
    return deploy.images({**deploy.defaults(ROOT), **values}, values, add)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, {}),
        ({"SegmentationHost": "ecs", "SegmentationCapacity": "GPU_SPOT"}, {"worker": "gpu"}),
        ({"SegmentationHost": "sagemaker"}, {"endpoint": "cpu"}),
        ({"SegmentationHost": "sagemaker", "SageMakerInstanceType": "ml.g5.xlarge"}, {"endpoint": "gpu"}),
        ({"SegmentationHost": "sagemaker", "SageMakerEndpointName": "theirs"}, {}),
        ({"SageMakerMode": "transform", "BulkTransformInstanceType": "ml.g4dn.xlarge"}, {"endpoint": "gpu"}),
        ({"WebDomain": "cutouts.example.com"}, {"web": "web"}),
    ],
)
def test_the_parameters_decide_which_images_are_built(values: dict[str, str], parts: dict[str, str]) -> None:
    assert chosen(**values) == parts


def as_sam_reads(arguments: list[str]) -> dict[str, str]:
    return dict(CfnParameterOverridesType().convert(tuple(arguments), None, None))


def test_sam_reads_the_parameters_as_they_are() -> None:
    values = {
        "CustomModels": '[{"name": "a b", "url": "s3://x/y.onnx"}]',
        "Presets": r'{"a": "\\d \"b\""}',
        "UrlSchemes": "http,https",
        "ModelMirror": "",
        "AlertEmail": "ops+pbr@example.com",
        "WebOidcIssuer": "C:\\models\\ x\\'",
    }
    assert as_sam_reads(deploy.overrides(values)) == values


@given(st.text(alphabet="\\\\\\\"' =,a1\n\u00e9", max_size=12))
@example("ParameterKey=A,ParameterValue=b")
@example("a\\")
def test_a_parameter_reaches_sam_as_it_is_or_is_rejected(value: str) -> None:
    try:
        arguments = deploy.overrides({"Presets": value})
    except deploy.DeployError as error:
        assert "Presets" in str(error)
        assert "\\" in value or "ParameterKey" in value  # nothing else is refused
    else:
        assert as_sam_reads(arguments) == {"Presets": value}


def test_parameters_of_samconfig_are_read_as_sam_reads_them(tools: Tools) -> None:
    config = (ROOT / "samconfig.toml").read_text()
    table = "[default.global.parameters]\n"
    line = r"""parameter_overrides = 'ModelMirror=\\host\x Presets="{\"a\": 1}"'"""
    (tools.folder / "samconfig.toml").write_text(config.replace(table, f"{table}{line}\n"))
    settings = deploy.read_settings("default", tools.folder)
    assert settings.parameters == {"ModelMirror": r"\\host\x", "Presets": '{"a": 1}'}


def test_the_build_names_the_commit_and_changes_to_the_images(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.4.0"\n')
    (tmp_path / "core").mkdir()
    (tmp_path / "core/code.py").write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "x")
    clean = deploy.build_of_checkout(tmp_path)
    assert clean.startswith("1.4.0-")
    (tmp_path / "samconfig.toml").write_text("not part of an image\n")
    assert deploy.build_of_checkout(tmp_path) == clean
    builds = {clean}
    for file, text in {"core/code.py": "2\n", "core/new.py": "1\n"}.items():
        (tmp_path / file).write_text(text)
        builds.add(deploy.build_of_checkout(tmp_path))
    assert len(builds) == 3


def test_tags_of_samconfig_are_kept_and_those_of_a_call_take_precedence(tools: Tools) -> None:
    def tags(*arguments: str) -> dict[str, str]:
        tools.deploy("--yes", *arguments)
        images, stack = (
            line.partition(" --tags ")[2] for line in tools.log.read_text().splitlines() if "--tags" in line
        )
        given: dict[str, str] = CfnTags().convert((stack.partition(" --parameter-overrides ")[0],), None, None)
        assert images == " ".join(f"{key}={value}" for key, value in given.items())
        return given

    of_samconfig = {"application": "precision-background-remover"}
    assert tags() == of_samconfig
    assert tags("--tags", "team='photo lab'") == {**of_samconfig, "team": "photo lab"}
    assert tags("--tags", "application=cut-outs") == {"application": "cut-outs"}


@pytest.mark.parametrize(
    "tag", ["team", "=photo", "AWS:team=photo", "team=ph(o)to", "k" * 129 + "=v", "k=" + "v" * 257]
)
def test_an_invalid_tag_is_rejected_before_the_images_are_built(tools: Tools, tag: str) -> None:
    commands, error = tools.deploy("--tags", f"'{tag}'")
    assert not commands and f"{tag!r} is no tag. Use KEY=VALUE" in error


def test_the_repository_keeps_images_in_use() -> None:
    """Images never expire by age, and only those with tags of make deploy expire."""
    repository = yaml_parse((ROOT / "infrastructure/repository.yaml").read_text())["Resources"]["Repository"]
    assert repository["DeletionPolicy"] == repository["UpdateReplacePolicy"] == "Retain"
    rules = json.loads(repository["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]
    chosen = [rule["selection"] for rule in rules]
    assert {one["countType"] for one in chosen} == {"imageCountMoreThan"}
    assert min(one["countNumber"] for one in chosen) >= 200
    flavors = re.findall(r"^FROM base AS (cpu|gpu|web)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert [one["tagPrefixList"] for one in chosen] == [[f"{flavor}-"] for flavor in sorted(flavors)]
    assert deploy.image_tag("cpu", BUILD, deploy.defaults(ROOT)).startswith("cpu-")
