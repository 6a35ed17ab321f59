"""``make deploy`` with fakes of aws, docker and sam on the PATH, which record their arguments."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from samcli.cli.types import CfnParameterOverridesType, CfnTags
from samtranslator.yaml_helper import yaml_parse

from infrastructure import deploy
from infrastructure.deployment import images, settings, templates
from tests.conftest import ROOT

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
REPOSITORY = f"{REGISTRY}/precision-background-remover-images-repository-1a2b3c"

BUILD = "1.4.0-abc"
STACK = "precision-background-remover"

# Instead of the stack's resources, which take seconds to read and write.
FUNCTION = """
  SegmentFunction:
    Type: AWS::Serverless::Function
    Properties: {PackageType: Image}
"""
NESTED = """
  BulkStack:
    Type: AWS::Serverless::Application
    Properties:
      Location: infrastructure/bulk.yaml
"""

DOCKER = """#!/bin/sh
[ "$2" = version ] || echo "docker $*" >>"$LOG"
case "$1 $2" in
    "login "*) cat >"$STATE/password" ;;
    "buildx version") [ ! -f "$STATE/no-buildx" ] || { echo "docker: unknown command: docker buildx" >&2; exit 1; } ;;
    "buildx build"|"buildx imagetools")
        for word; do
            case "$before" in --tag) touch "$STATE/tag-$(echo "${word%%:*}" | tr / +)-${word##*:}" ;; esac
            before=$word
        done ;;
esac
"""
SAM = """#!/bin/sh
echo "sam $*" >>"$LOG"
[ "$1" != "$FAILS" ] || { cp "$STATE/after.json" "$STATE/$STACK.json" 2>/dev/null; exit 3; }
"""
PBR = """#!/bin/sh
echo "pbr $*" >>"$LOG"
[ "$5" != "$SICK" ]
"""
AWS = """#!/bin/sh
echo "$*" >>"$STATE/calls"
case "$1 $2" in
    "cloudformation describe-stacks")
        [ -f "$STATE/$4.json" ] || { echo "ValidationError: Stack with id x does not exist" >&2; exit 254; }
        cat "$STATE/$4.json" ;;
    "cloudformation describe-stack-events") cat "$STATE/events-$4.json" ;;
    "cloudformation get-template-summary") cat "$STATE/metadata" ;;
    "cloudformation deploy") echo "aws $*" >>"$LOG"
        region=eu-west-1
        for word; do case "$before" in --region) region=$word ;; esac; before=$word; done
        uri=$(echo "$REPOSITORY" | sed "s/eu-west-1/$region/")
        echo '{"Outputs": [{"OutputKey": "RepositoryUri", "OutputValue": "'"$uri"'"}]}' >"$STATE/$4.json" ;;
    "ecr get-login-password") echo secret ;;
    "ecr describe-images")
        region=eu-west-1
        for word; do
            case "$word" in imageTag=*) tag=${word#imageTag=} ;; esac
            case "$before" in
                --region) region=$word ;;
                --repository-name) name=$word ;;
                --registry-id) account=$word ;;
            esac
            before=$word
        done
        image=$account.dkr.ecr.$region.$DOMAIN+$name-$tag
        [ -f "$STATE/tag-$image" ] || { echo "ImageNotFoundException" >&2; exit 254; }
        echo "sha256:${tag%%-*}	$(cat "$STATE/media-type")" ;;
    "s3 cp") echo "aws $*" >>"$LOG" ;;
    *) echo "AccessDenied: $*" >&2; exit 255 ;;
esac
"""


class Tools:
    """A PATH with the fakes, their state, and their log."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.log = folder / "log"
        (folder / "samconfig.toml").write_text((ROOT / "samconfig.toml").read_text())
        parameters, _, _ = (ROOT / "template.yaml").read_text().partition("\nResources:\n")
        (folder / "template.yaml").write_text(f"{parameters}\nResources:\n{FUNCTION}{NESTED}")
        for name in ("infrastructure", "statemachine"):
            (folder / name).mkdir()
        (folder / "infrastructure/bulk.yaml").write_text(f"Resources:\n{FUNCTION}")
        (folder / "statemachine/bulk.asl.yaml").write_text("StartAt: Nothing\n")
        for name, script in {"docker": DOCKER, "sam": SAM, "aws": AWS, "pbr": PBR}.items():
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
        (folder / "media-type").write_text("application/vnd.docker.distribution.manifest.v2+json")
        variables = {
            "REPOSITORY": REPOSITORY,
            "DOMAIN": "amazonaws.com",
            "STACK": STACK,
            "SICK": "",
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

    def stack_has(self, parameters: Mapping[str, str], status: str = "UPDATE_COMPLETE", name: str = STACK) -> None:
        listed = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
        tags = settings.read_settings("default" if name == STACK else "prod", self.folder).tags
        stack = {
            "StackId": f"id-{name}",
            "StackStatus": status,
            "Parameters": listed,
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        }
        (self.folder / f"{name}.json").write_text(json.dumps(stack))

    @property
    def functions_run(self) -> set[str | None]:
        return functions_run(self.folder)


def functions_run(project: Path) -> set[str | None]:
    """Return the images of the functions in the templates that sam deploys, nested ones included."""
    written = [yaml_parse(path.read_text()) for path in (project / templates.WRITTEN).rglob("*.yaml")]
    resources = [one for template in written for one in template.get("Resources", {}).values()]
    found = [one["Properties"].get("ImageUri") for one in resources if one["Type"] == "AWS::Serverless::Function"]
    assert len(found) > 1
    return set(found)


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
    assert [command[:3] for command in commands] == [
        ["aws", "cloudformation", "deploy"],
        ["docker", "login", "--username"],
        ["docker", "buildx", "build"],
        ["sam", "deploy", "--template-file"],
    ]
    assert commands[0][3:5] == ["--stack-name", "precision-background-remover-images"]
    assert commands[1][-1] == REGISTRY
    image = commands[2][commands[2].index("--tag") + 1]
    assert image.startswith(f"{REPOSITORY}:cpu-{BUILD}-")
    assert tools.functions_run == {image}
    assert commands[3][commands[3].index("--image-repository") + 1] == REPOSITORY
    assert parameters(commands[3]) == {
        "SegmentationHost": "ecs",
        "Build": BUILD,
        "WorkerImageUri": f"{REPOSITORY}@sha256:cpu",
        "SageMakerImageUri": f"{REPOSITORY}@sha256:cpu",
    }
    assert "--no-confirm-changeset" in commands[3]
    assert (tools.folder / "password").read_text() == "secret"
    assert "secret" not in capsys.readouterr().out


def test_the_written_templates_of_the_stack_refer_to_files_that_exist(tmp_path: Path) -> None:
    for name in ("infrastructure", "statemachine"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(ROOT / "template.yaml", tmp_path)
    templates.write(tmp_path, f"{REPOSITORY}:cpu-x")
    assert functions_run(tmp_path) == {f"{REPOSITORY}:cpu-x"}
    files = []
    for path in (tmp_path / templates.WRITTEN).rglob("*.yaml"):
        for resource in yaml_parse(path.read_text()).get("Resources", {}).values():
            properties = resource.get("Properties", {})
            files += [path.parent / properties[name] for name in ("Location", "DefinitionUri") if name in properties]
    assert len(files) >= 9 and all(file.is_file() for file in files)


def test_a_second_deployment_pushes_nothing_and_has_the_same_parameters(tools: Tools) -> None:
    first, _ = tools.deploy("--parameters", "SegmentationHost=ecs SegmentationCapacity=GPU")
    assert ["docker", "buildx", "build", "--target", "gpu"] in [command[:5] for command in first]
    functions_run = tools.functions_run
    second, error = tools.deploy("--parameters", "SegmentationHost=ecs SegmentationCapacity=GPU")
    assert not error
    assert [command[:2] for command in second] == [["aws", "cloudformation"], ["sam", "deploy"]]
    assert second[-1] == first[-1]
    assert tools.functions_run == functions_run


def test_a_part_of_the_deployed_stack_gets_the_new_image(tools: Tools) -> None:
    tools.stack_has(
        {"WorkerImageUri": f"{REPOSITORY}@sha256:old", "SegmentationCapacity": "GPU", "DefaultModel": "u2net"}
    )
    commands, error = tools.deploy()
    assert not error
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
    commands, error = tools.deploy("--parameters", parameters)
    assert not error
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
    monkeypatch.setenv("DOMAIN", "amazonaws.com.cn")
    commands, error = tools.deploy("--parameters", "SegmentationHost=ecs")
    assert not error
    assert parameters(commands[-1])["WorkerImageUri"].startswith(f"{REGISTRY}.cn/")
    assert ["docker", "login", f"{REGISTRY}.cn"] in [[*command[:2], command[-1]] for command in commands]


def test_a_failed_deployment_fails(tools: Tools) -> None:
    _, error = tools.deploy("--parameters", "SegmentationHost=ecs", fails="deploy")
    assert error.startswith("deploy: sam deploy failed with exit status 3")


def test_a_dry_run_prints_the_commands_and_runs_none(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    commands, error = tools.deploy("--parameters", "SegmentationHost=ecs", "--dry-run")
    assert (commands, error) == ([], "")
    printed = [shlex.split(line)[1:3] for line in capsys.readouterr().out.splitlines()]
    assert printed[:2] == [["aws", "cloudformation"], ["docker", "login"]]
    assert printed[-1] == ["sam", "deploy"]
    assert ["docker", "buildx"] in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config-env", "tests"],
            "samconfig.toml has no environment 'tests'. Use one of default, staging, prod, us-east-1",
        ),
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
    assert not [one for one in tools.commands() if one[0] == "sam"]
    assert errors[0] == ""
    assert f"it must have at most {longest} characters" in errors[1]


def test_the_defaults_of_the_template_are_allowed() -> None:
    declared = settings.defaults(ROOT)
    assert len(declared) > 50
    settings.check({name: value for name, value in declared.items() if value}, ROOT)


def chosen(add: tuple[str, ...] = (), **values: str) -> dict[str, str]:
    return images.needed({**settings.defaults(ROOT), **values}, values, add)


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
    assert as_sam_reads(settings.overrides(values)) == values


@given(st.text(alphabet="\\\\\\\"' =,a1\n\u00e9", max_size=12))
@example("ParameterKey=A,ParameterValue=b")
@example("a\\")
def test_a_parameter_reaches_sam_as_it_is_or_is_rejected(value: str) -> None:
    try:
        arguments = settings.overrides({"Presets": value})
    except settings.DeployError as error:
        assert "Presets" in str(error)
        assert "\\" in value or "ParameterKey" in value  # nothing else is refused
    else:
        assert as_sam_reads(arguments) == {"Presets": value}


def test_parameters_of_samconfig_are_read_as_sam_reads_them(tools: Tools) -> None:
    config = (ROOT / "samconfig.toml").read_text()
    table = "[default.global.parameters]\n"
    line = r"""parameter_overrides = 'ModelMirror=\\host\x Presets="{\"a\": 1}"'"""
    (tools.folder / "samconfig.toml").write_text(config.replace(table, f"{table}{line}\n"))
    read = settings.read_settings("default", tools.folder)
    assert read.parameters == {"ModelMirror": r"\\host\x", "Presets": '{"a": 1}'}


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
    clean = images.build_of_checkout(tmp_path)
    assert clean.startswith("1.4.0-")
    (tmp_path / "samconfig.toml").write_text("not part of an image\n")
    assert images.build_of_checkout(tmp_path) == clean
    builds = {clean}
    for file, text in {"core/code.py": "2\n", "core/new.py": "1\n"}.items():
        (tmp_path / file).write_text(text)
        builds.add(images.build_of_checkout(tmp_path))
    assert len(builds) == 3


def test_tags_of_samconfig_are_kept_and_those_of_a_call_take_precedence(tools: Tools) -> None:
    def tags(*arguments: str) -> dict[str, str]:
        tools.deploy("--yes", *arguments)
        repository, stack = (
            line.partition(" --tags ")[2] for line in tools.log.read_text().splitlines() if "--tags" in line
        )
        given: dict[str, str] = CfnTags().convert((stack.partition(" --parameter-overrides ")[0],), None, None)
        assert repository.partition(" --region ")[0] == " ".join(f"{key}={value}" for key, value in given.items())
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
    assert images.image_tag("cpu", BUILD, settings.defaults(ROOT)).startswith("cpu-")


def test_a_profile_role_and_bucket_of_samconfig_reach_every_stack(tools: Tools) -> None:
    config = (ROOT / "samconfig.toml").read_text()
    table = "[default.global.parameters]\n"
    lines = 'role_arn = "arn:aws:iam::123456789012:role/cfn"\ns3_bucket = "templates"\n'
    (tools.folder / "samconfig.toml").write_text(config.replace(table, table + lines))
    commands, error = tools.deploy()
    assert not error
    changes = [" ".join(one) for one in commands if one[1] in ("deploy", "cloudformation")]
    assert len(changes) == 2 and all("--role-arn arn:aws:iam::123456789012:role/cfn" in one for one in changes)
    assert "--s3-bucket templates" in changes[1] and "--resolve-s3" not in changes[1]
    commands, _ = tools.deploy("--role", "arn:aws:iam::123456789012:role/other")
    changes = [" ".join(one) for one in commands if one[1] in ("deploy", "cloudformation")]
    assert all("--role-arn arn:aws:iam::123456789012:role/other" in one for one in changes)


def test_the_region_of_a_call_takes_precedence(tools: Tools) -> None:
    commands, error = tools.deploy("--region", "us-west-2")
    assert not error
    [sam] = [" ".join(one) for one in commands if one[0] == "sam"]
    assert "--region us-west-2" in sam and "ecr.us-west-2.amazonaws.com" in sam
    assert "--region eu-west-1" not in (tools.folder / "calls").read_text()


SOURCE = "210987654321.dkr.ecr.us-east-1.amazonaws.com/images"


def test_images_of_a_repository_are_copied_and_not_built(tools: Tools) -> None:
    tag = images.image_tag("cpu", BUILD, settings.defaults(ROOT))
    commands, error = tools.deploy("--images", SOURCE)
    assert f"{SOURCE} has no image {tag}" in error and f"make images IMAGES={SOURCE}" in error
    assert not [one for one in commands if one[0] == "sam" or one[1] == "buildx"]
    (tools.folder / f"tag-{SOURCE.replace('/', '+')}-{tag}").touch()
    commands, error = tools.deploy("--images", SOURCE)
    assert not error
    [copy] = [one for one in commands if one[1] == "buildx"]
    assert copy[2:] == [
        "imagetools", "create", "--prefer-index=false", "--tag", f"{REPOSITORY}:{tag}", f"{SOURCE}@sha256:cpu",
    ]  # fmt: skip
    logins = [one[-1] for one in commands if one[1] == "login"]
    assert logins == [SOURCE.partition("/")[0], REGISTRY]
    assert tools.functions_run == {f"{REPOSITORY}:{tag}"}


def test_only_listed_images_are_deployed(tools: Tools) -> None:
    tag = images.image_tag("cpu", BUILD, settings.defaults(ROOT))
    (tools.folder / f"tag-{REPOSITORY.replace('/', '+')}-{tag}").touch()  # pushed without a delivery
    listed = tools.folder / "images.json"
    for digest in ("other", "cpu"):
        listed.write_text(json.dumps([{"flavor": "cpu", "image": f"{SOURCE}@sha256:{digest}"}]))
        commands, error = tools.deploy("--images", SOURCE, "--listed", str(listed))
        assert bool([one for one in commands if one[0] == "sam"]) == (digest == "cpu")
        assert (f"{tag} is sha256:cpu, which LISTED lacks" in error) == (digest == "other")
    assert "LISTED requires IMAGES" in tools.deploy("--listed", str(listed))[1]


def test_a_repository_outside_ecr_is_rejected(tools: Tools) -> None:
    commands, error = tools.deploy("--images", "ghcr.io/team/images")
    assert not commands and "'ghcr.io/team/images' is no repository in ECR. Use e.g." in error


def test_images_are_pushed_once_and_listed(tools: Tools) -> None:
    commands, error = tools.deploy("images", "--images", SOURCE, "--flavors", "cpu web")
    assert not error
    assert [one[4] for one in commands if one[1] == "buildx"] == ["cpu", "web"]
    listed = json.loads((tools.folder / "out/images.json").read_text())
    assert listed == [{"flavor": one, "image": f"{SOURCE}@sha256:{one}"} for one in ("cpu", "web")]
    assert tools.deploy("images", "--images", SOURCE, "--flavors", "cpu web") == ([], "")


def test_a_package_is_written_to_the_bucket(tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Name a bucket" in tools.deploy("package")[1]
    commands, error = tools.deploy("package", "--bucket", "templates", "--parameters", "SegmentationHost=ecs")
    assert not error
    assert [one[:2] for one in commands[-2:]] == [["sam", "package"], ["aws", "s3"]]
    printed = capsys.readouterr().out
    assert f"https://templates.s3.eu-west-1.amazonaws.com/{STACK}/{BUILD}/template.yaml" in printed
    assert f"WorkerImageUri={REPOSITORY}@sha256:cpu" in printed


PROD = f"{STACK}-prod"


def prod_has(tools: Tools, build: str) -> None:
    tools.stack_has({**settings.read_settings("prod", ROOT).parameters, "Build": build}, name=PROD)


def test_all_regions_are_deployed_in_order_with_one_build(tools: Tools) -> None:
    prod_has(tools, BUILD)
    (tools.folder / "metadata").write_text("None")  # stacks of an earlier template
    commands, error = tools.deploy("all", "--yes")
    assert not error
    regions = [one[one.index("--region") + 1] for one in commands if one[0] in ("sam", "pbr")]
    assert regions == [region for region in deploy.REGIONS for _ in ("sam", "pbr")]
    builds = [one[2] for one in commands if one[1] == "buildx"]
    assert builds == ["build", "imagetools", "imagetools", "imagetools"]


def test_a_problem_stops_the_deployment_of_further_regions(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    prod_has(tools, BUILD)
    (tools.folder / "metadata").write_text("None")
    monkeypatch.setenv("SICK", "us-west-2")
    commands, error = tools.deploy("all", "--yes")
    assert "us-west-2: precision-background-remover-prod is deployed, but pbr doctor found a problem" in error
    assert "Deployed before: us-east-1. Not deployed: eu-west-1, ap-southeast-1." in error
    assert commands[-1][0] == "pbr" and commands[-1][-1] == "us-west-2"


def test_a_stack_that_was_not_deployed_stops_the_deployment(tools: Tools) -> None:
    prod_has(tools, "older")  # as after a change set that was declined
    commands, error = tools.deploy("all", "--environments", "prod us-east-1")
    assert "prod: precision-background-remover-prod was not deployed" in error
    assert len([one for one in commands if one[0] == "sam"]) == 1


@pytest.mark.parametrize("difference", ["", "parameters", "build", "template", "tags", "status"])
def test_only_a_stack_that_is_up_to_date_is_skipped(tools: Tools, difference: str) -> None:
    prod_has(tools, BUILD)
    (tools.folder / "metadata").write_text(f"{{'Source': '{templates.digest(tools.folder)}'}}")
    arguments = {
        "parameters": ["--parameters", "CacheDays=3"],
        "build": ["--build", "other"],
        "tags": ["--tags", "team=photo"],
    }.get(difference, [])
    if difference == "template":
        with (tools.folder / "statemachine/bulk.asl.yaml").open("a") as file:
            file.write("# changed")
    if difference == "status":
        tools.stack_has(
            {**settings.read_settings("prod", ROOT).parameters, "Build": BUILD}, "UPDATE_ROLLBACK_COMPLETE", PROD
        )
    commands, _ = tools.deploy("all", "--environments", "prod", *arguments)
    assert bool([one for one in commands if one[0] == "sam"]) == bool(difference)


def event(name: str, kind: str, status: str, reason: str = "", *, stack: str, own: str = "") -> dict[str, str]:
    return {
        "StackId": stack, "LogicalResourceId": name, "PhysicalResourceId": own, "ResourceType": kind,
        "ResourceStatus": status, "ResourceStatusReason": reason,
    }  # fmt: skip


def test_a_failed_update_lists_what_failed_with_state_and_remedy(tools: Tools) -> None:
    root, nested, kind = f"id-{STACK}", "id-nested", "AWS::CloudFormation::Stack"
    tools.stack_has({}, "UPDATE_ROLLBACK_COMPLETE")
    (tools.folder / f"{STACK}.json").rename(tools.folder / "after.json")
    tools.stack_has({})
    older = event("Older", "AWS::SQS::Queue", "UPDATE_FAILED", "fixed since", stack=root)
    events = [
        event(STACK, kind, "UPDATE_ROLLBACK_COMPLETE", stack=root, own=root),
        event("WorkerStack", kind, "UPDATE_FAILED", "Embedded stack was not updated", stack=root, own=nested),
        event("UploadsBucket", "AWS::S3::Bucket", "UPDATE_FAILED", "Resource update cancelled", stack=root),
        event("JobsTable", "AWS::DynamoDB::Table", "UPDATE_FAILED", "Access denied", stack=root),
        event(STACK, kind, "UPDATE_IN_PROGRESS", "User Initiated", stack=root, own=root),
        older,
    ]
    (tools.folder / f"events-{root}.json").write_text(json.dumps(events))
    inner = [event("Service", "AWS::ECS::Service", "UPDATE_FAILED", "No capacity", stack=nested)]
    (tools.folder / f"events-{nested}.json").write_text(json.dumps(inner))
    _, error = tools.deploy(fails="deploy")
    assert error.splitlines()[1:] == [
        "  Service (AWS::ECS::Service) UPDATE_FAILED: No capacity",
        "  JobsTable (AWS::DynamoDB::Table) UPDATE_FAILED: Access denied",
        f"{STACK} is UPDATE_ROLLBACK_COMPLETE. It runs as before the update. Remove the cause, and deploy again.",
    ]


def test_events_of_an_earlier_update_are_not_listed(tools: Tools) -> None:
    tools.stack_has({}, "UPDATE_ROLLBACK_COMPLETE")
    _, error = tools.deploy(fails="deploy")
    assert error == "deploy: sam deploy failed with exit status 3, see above."


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("ROLLBACK_COMPLETE", "aws cloudformation delete-stack --stack-name"),
        ("UPDATE_ROLLBACK_FAILED", "aws cloudformation continue-update-rollback --stack-name"),
        ("UPDATE_FAILED", "aws cloudformation rollback-stack --stack-name"),
        ("UPDATE_IN_PROGRESS", "Wait until this has ended"),
    ],
)
def test_a_stack_that_cannot_be_updated_is_reported_before_the_build(tools: Tools, status: str, remedy: str) -> None:
    tools.stack_has({}, status)
    commands, error = tools.deploy()
    assert commands == []
    assert f"{STACK} is {status}." in error and remedy in error


REGIONAL = {
    *("ApiCertificateArn", "ApiRouting", "KmsKeyArn", "ResultsReplicaBucketArn", "ResultsReplicaKmsKeyArn"),
    *("WebCertificateArn", "WebSubnets", "WebTaskSubnets", "WebVpc", "WorkerSecurityGroups", "WorkerSubnets"),
}
"""Parameters that differ between Regions, most of which name resources there."""


def test_the_stacks_of_production_differ_in_what_is_regional_only() -> None:
    def common(environment: str) -> settings.Settings:
        read = settings.read_settings(environment, ROOT)
        parameters = {name: value for name, value in read.parameters.items() if name not in REGIONAL}
        return dataclasses.replace(read, region="", s3_bucket=None, parameters=parameters)

    for region in deploy.REGIONS:
        assert settings.read_settings(region, ROOT).region == region
        assert common(region) == common("prod")
    assert settings.read_settings("prod", ROOT).region in deploy.REGIONS
    assert settings.defaults(ROOT).keys() >= REGIONAL
