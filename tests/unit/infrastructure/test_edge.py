"""``make deploy-edge`` on a fake of AWS."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
from cryptography.hazmat.primitives import serialization
from moto import mock_aws
from moto.cloudformation.models import ChangeSet
from moto.cloudfront.models import cloudfront_backends
from moto.core import DEFAULT_ACCOUNT_ID
from samtranslator.yaml_helper import yaml_parse

from functions.runtime.edge import Keys
from infrastructure import edge
from infrastructure.deployment.settings import read_settings
from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # each test makes keys, and deploys stacks on moto

SAMCONFIG: Final = """
version = 0.1
[edge.global.parameters]
stack_name = "edge"
region = "us-east-1"
template_file = "infrastructure/edge.yaml"
[west.global.parameters]
stack_name = "pbr"
region = "eu-west-1"
[east.global.parameters]
stack_name = "pbr"
region = "us-east-1"
[asia.global.parameters]
stack_name = "pbr"
region = "ap-southeast-1"
"""
REGIONS: Final = {"west": "eu-west-1", "east": "us-east-1", "asia": "ap-southeast-1"}
DOMAIN: Final = "EdgeDomain=images.example.com HostedZoneId=Z0123456789"


HTTPS: Final = {"HTTPPort": 80, "HTTPSPort": 443, "OriginProtocolPolicy": "https-only"}
ORIGIN: Final = {"Id": "api", "DomainName": "origin.example.com", "CustomOriginConfig": HTTPS}
DISTRIBUTION: Final[Any] = {
    "CallerReference": "edge",
    "Comment": "",
    "Enabled": True,
    "Origins": {"Quantity": 1, "Items": [ORIGIN]},
    "DefaultCacheBehavior": {"TargetOriginId": "api", "ViewerProtocolPolicy": "https-only"},
}


def stand_in(distribution_id: str) -> dict[str, Any]:
    """Return a template with the parameters and outputs of the edge. moto's CloudFormation has no distributions."""
    real = yaml_parse((ROOT / edge.TEMPLATE).read_text())
    values = {
        "KeyPairId": {"Fn::Sub": "K${SigningKey}"},
        "DistributionId": distribution_id,
        "DistributionDomain": "d1.example.net",
    }
    assert values.keys() <= real["Outputs"].keys()
    everything = {"Fn::Sub": " ".join(f"{name}=${{{name}}}" for name in sorted(edge.COLLECTED))}
    return {
        "Parameters": {  # moto describes lists in another form than CloudFormation
            name: {**declared, "Type": declared["Type"].replace("CommaDelimitedList", "String")}
            for name, declared in real["Parameters"].items()
        },
        "Resources": {
            "Values": {
                "Type": "AWS::SSM::Parameter",
                "Properties": {"Name": "values", "Type": "String", "Value": everything},
            }
        },
        "Outputs": {name: {"Value": value} for name, value in values.items()},
    }


class Account:
    """The account, with stacks of Regions that have parameters and outputs, and a folder of the project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "samconfig.toml").write_text(SAMCONFIG)
        (folder / "infrastructure").mkdir()
        made = boto3.client("cloudfront").create_distribution(DistributionConfig=DISTRIBUTION)
        self.distribution_id = made["Distribution"]["Id"]
        (folder / edge.TEMPLATE).write_text(json.dumps(stand_in(self.distribution_id)))
        (folder / "template.yaml").write_text((ROOT / "template.yaml").read_text())
        self.secrets = boto3.client("secretsmanager", "us-east-1")

    def region(self, environment: str, health_check: str = "", **parameters: str) -> None:
        """Create or update the stack of a Region."""
        outputs = {
            "ResultsBucket": f"results-{environment}",
            **({"ApiHealthCheckId": health_check} if health_check else {}),
        }
        template = {
            "Parameters": {name: {"Type": "String"} for name in parameters},
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
        client = boto3.client("cloudformation", REGIONS[environment])
        exists = any(one["StackName"] == "pbr" for one in client.describe_stacks()["Stacks"])
        (client.update_stack if exists else client.create_stack)(
            StackName="pbr",
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        )

    def deploy(self, envs: str = "west", *words: str, parameters: str = DOMAIN) -> None:
        edge.main(["--project", str(self.folder), "--envs", envs, "--parameters", parameters, "--yes", *words])

    def stack(self) -> Mapping[str, Any]:
        return boto3.client("cloudformation", "us-east-1").describe_stacks(StackName="edge")["Stacks"][0]

    def parameters(self) -> dict[str, str]:
        return {one["ParameterKey"]: one["ParameterValue"] for one in self.stack()["Parameters"]}

    def outputs(self) -> dict[str, str]:
        return {one["OutputKey"]: one["OutputValue"] for one in self.stack()["Outputs"]}

    def value(self) -> dict[str, str]:
        value: dict[str, str] = json.loads(self.secrets.get_secret_value(SecretId="edge")["SecretString"])
        return value


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setattr("time.sleep", lambda _: None)
    # moto applies change sets without new outputs and parameters.
    monkeypatch.setattr(ChangeSet, "apply", lambda self: self.stack.update(self.template, parameters=self.parameters))
    with mock_aws():
        yield Account(tmp_path)


def version_of(secret: Any, stage: str) -> str:
    [version] = [name for name, stages in secret["VersionIdsToStages"].items() if stage in stages]
    return str(version)


def public_key(private_key: str) -> str:
    key = serialization.load_pem_private_key(private_key.encode(), None).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode().strip()


def test_the_first_deployment_creates_the_secret_and_collects_the_stacks(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.region("west", "hc-west", ApiDomain="origin.example.com")
    account.region("east", ApiDomain="origin.example.com")
    account.deploy("west east")
    found, value = account.parameters(), account.value()
    collected = {name: found[name] for name in sorted(edge.COLLECTED) if found[name]}
    secret = account.secrets.describe_secret(SecretId="edge")
    assert collected == {
        "ApiDomain": "origin.example.com",
        "HealthCheck1": "hc-west",
        "PublicKey1": public_key(value["private_key"]),
        "Region1": "eu-west-1",
        "Region2": "us-east-1",
        "ResultsBucket1": "results-west",
        "ResultsBucket2": "results-east",
        "SecretArn": secret["ARN"],
        "SecretVersion": version_of(secret, "AWSPREVIOUS"),
        "SigningKey": "1",
    }
    assert len(value["origin_secret"]) >= 32
    assert Keys.model_validate(value).url == "https://images.example.com", "as the API reads it"
    assert value["key_pair_id"] == "K1"
    assert [one["Region"] for one in secret["ReplicationStatus"]] == ["eu-west-1"]
    printed = capsys.readouterr().out
    wanted = f"EdgeDomain=images.example.com EdgeSecretArn={secret['ARN']} EdgeDistributionId={account.distribution_id}"
    for environment in ("west", "east"):
        assert f'make deploy ENV={environment} PARAMETERS="{wanted}"' in printed
    assert value["origin_secret"] not in printed
    assert value["private_key"].splitlines()[1] not in printed


def test_a_second_deployment_keeps_keys_and_parameters_and_adds_a_region(account: Account) -> None:
    account.region("west", ApiDomain="origin.example.com")
    account.deploy(parameters=f"{DOMAIN} RequestsPerAddress=500")
    before = account.parameters()
    account.region("asia", ApiDomain="origin.example.com")
    account.deploy("west asia", parameters="")
    added = {"Region2": "ap-southeast-1", "ResultsBucket2": "results-asia"}
    assert account.parameters() == {**before, **added}
    replicas = account.secrets.describe_secret(SecretId="edge")["ReplicationStatus"]
    assert {one["Region"] for one in replicas} == {"eu-west-1", "ap-southeast-1"}
    account.deploy("asia", parameters="")
    assert account.parameters() == {
        **before,
        **added,
        "Region1": "ap-southeast-1",
        "ResultsBucket1": "results-asia",
        "Region2": "",
        "ResultsBucket2": "",
    }


def test_stacks_with_a_replica_come_first(account: Account) -> None:
    boto3.client("s3", "us-east-1").create_bucket(Bucket="replica")
    account.region("asia", ApiDomain="origin.example.com")
    account.region("west", ApiDomain="origin.example.com", ResultsReplicaBucketArn="arn:aws:s3:::replica")
    account.deploy("asia west")
    found = account.parameters()
    assert [found[name] for name in ("Region1", "ReplicaBucket1", "ReplicaRegion1")] == [
        "eu-west-1",
        "replica",
        "us-east-1",
    ]
    assert [found[name] for name in ("Region2", "ReplicaBucket2")] == ["ap-southeast-1", ""]


def test_a_dry_run_changes_nothing(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.region("west", ApiDomain="origin.example.com")
    account.deploy("west", "--dry-run")
    assert "would create secret edge\nwould replicate secret edge to eu-west-1" in capsys.readouterr().out
    assert account.secrets.list_secrets()["SecretList"] == []
    assert boto3.client("cloudformation", "us-east-1").describe_stacks()["Stacks"] == []


def test_a_new_origin_secret_becomes_the_version_that_the_edge_reads(account: Account) -> None:
    account.region("west", ApiDomain="origin.example.com")
    account.deploy()
    before, old = account.parameters(), account.value()
    account.deploy("west", "--rotate", "origin-secret", parameters="")
    after, new = account.parameters(), account.value()
    assert new["private_key"] == old["private_key"]
    assert new["origin_secret"] != old["origin_secret"]
    assert new["previous_origin_secret"] == old["origin_secret"], (
        "the API accepts it until CloudFront sends the new one"
    )
    assert {name for name in after if after[name] != before[name]} == {"SecretVersion"}
    assert after["SecretVersion"] == account.secrets.get_secret_value(SecretId="edge")["VersionId"]


def test_an_interrupted_rotation_is_finished_before_the_next(account: Account) -> None:
    """The API accepts two values. A third would lock CloudFront out."""
    account.region("west", ApiDomain="origin.example.com")
    account.deploy()
    value = {**account.value(), "origin_secret": "new"}
    account.secrets.put_secret_value(SecretId="edge", SecretString=json.dumps(value))
    with pytest.raises(SystemExit, match="CloudFront does not send the current value yet"):
        account.deploy("west", "--rotate", "origin-secret")
    account.deploy()
    assert account.parameters()["SecretVersion"] == account.secrets.get_secret_value(SecretId="edge")["VersionId"]


def test_a_signing_key_is_replaced_in_two_steps(account: Account) -> None:
    account.region("west", ApiDomain="origin.example.com")
    account.deploy()
    before, old = account.parameters(), account.value()
    account.deploy("west", "--rotate", "signing-key", parameters="")
    both, new = account.parameters(), account.value()
    assert both["PublicKey1"] == before["PublicKey1"]
    assert both["PublicKey2"] == public_key(new["private_key"])
    assert new.keys() == old.keys()
    assert (new["origin_secret"], new["key_pair_id"]) == (old["origin_secret"], "K2")
    with pytest.raises(SystemExit, match="two signing keys"):
        account.deploy("west", "--rotate", "signing-key")

    account.deploy("west", "--rotate", "retire", parameters="")
    assert account.parameters() == {**both, "PublicKey1": ""}
    account.deploy("west", "--rotate", "signing-key", parameters="")
    assert account.parameters()["PublicKey1"] not in ("", before["PublicKey1"])
    assert account.value()["key_pair_id"] == "K1"


def test_the_api_signs_with_a_new_key_only_when_cloudfront_has_it_everywhere(account: Account) -> None:
    account.region("west", ApiDomain="origin.example.com")
    account.deploy()
    cloudfront_backends[DEFAULT_ACCOUNT_ID]["aws"].distributions.clear()  # the wait for its deployment fails
    with pytest.raises(SystemExit, match="DistributionDeployed"):
        account.deploy("west", "--rotate", "signing-key", parameters="")
    assert account.parameters()["PublicKey2"] and account.value()["key_pair_id"] == "K1"


def test_the_api_does_not_sign_with_a_key_that_cloudfront_does_not_know(account: Account) -> None:
    account.region("west", ApiDomain="origin.example.com")
    account.deploy()
    old, new = account.value(), {**account.value(), "next_private_key": edge._private_key()}
    account.secrets.put_secret_value(SecretId="edge", SecretString=json.dumps(new))  # a rotation is interrupted here
    with pytest.raises(SystemExit, match="The API does not sign with the new key yet"):
        account.deploy("west", "--rotate", "retire")
    assert account.value()["private_key"] == old["private_key"]
    account.deploy()
    found = account.value()
    assert (found["private_key"], found["key_pair_id"]) == (new["next_private_key"], "K2")


def test_a_rotation_is_of_all_regions(account: Account) -> None:
    account.region("west", ApiDomain="origin.example.com")
    account.region("asia", ApiDomain="origin.example.com")
    account.deploy("west asia")
    with pytest.raises(SystemExit, match="all Regions of the edge in ENVS, and no other: ap-southeast-1, eu-west-1"):
        account.deploy("west", "--rotate", "signing-key")


def test_a_deployment_without_changes_succeeds(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.region("west", ApiDomain="origin.example.com")
    account.deploy()
    account.deploy()
    account.deploy()  # moto compares parameters as they are given, without defaults
    assert "The stack edge is up to date." in capsys.readouterr().out


def test_nothing_is_deployed_without_confirmation(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    account.region("west", ApiDomain="origin.example.com")
    monkeypatch.setattr("builtins.input", lambda _: "n")
    edge.main(["--project", str(account.folder), "--envs", "west", "--parameters", DOMAIN])
    assert account.stack()["StackStatus"] == "REVIEW_IN_PROGRESS"


@pytest.mark.parametrize(
    ("envs", "words", "parameters", "problem"),
    [
        ("", (), DOMAIN, "Name 1 to 4 environments"),
        ("moon", (), DOMAIN, "no environment 'moon'"),
        ("east", (), DOMAIN, "There is no stack pbr in us-east-1"),
        ("asia", (), DOMAIN, "has no ApiDomain"),
        ("west west", (), DOMAIN, "Two of the stacks are in eu-west-1"),
        ("west", ("--config-env", "west"), DOMAIN, "is of template.yaml, not of infrastructure/edge.yaml"),
        ("west", (), "", "EdgeDomain has no value"),
        ("west", (), "EdgeDomain=http://x", "EdgeDomain=http://x is not allowed"),
        ("west", (), f"{DOMAIN} Region1=eu-west-1", "Region1 is read from the Regions' stacks"),
        ("edge", (), DOMAIN, "is of infrastructure/edge.yaml, not of template.yaml"),
        ("west", ("--rotate", "origin-secret"), DOMAIN, "The edge is not deployed"),
    ],
)
def test_errors_name_the_value_and_the_remedy(
    account: Account, envs: str, words: tuple[str, ...], parameters: str, problem: str
) -> None:
    account.region("west", ApiDomain="origin.example.com")
    account.region("asia", WebDomain="x")
    with pytest.raises(SystemExit, match=f"deploy-edge: .*{problem}"):
        account.deploy(envs, *words, parameters=parameters)
    assert account.secrets.list_secrets()["SecretList"] == []


def test_stacks_of_different_domains_are_rejected(account: Account) -> None:
    account.region("west", ApiDomain="a.example.com")
    account.region("east", ApiDomain="b.example.com")
    with pytest.raises(SystemExit, match=r"different values of ApiDomain: a\.example\.com, b\.example\.com"):
        account.deploy("west east")


def test_environment_and_template_of_the_project_are_valid() -> None:
    assert read_settings("edge", ROOT, template=edge.TEMPLATE).region == edge.REGION
    assert len((ROOT / edge.TEMPLATE).read_bytes()) <= 51_200, (
        "CloudFormation takes larger templates from a bucket only"
    )
