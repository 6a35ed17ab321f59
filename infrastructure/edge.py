"""Deploy the edge before the stacks of up to four Regions: ``make deploy-edge``.

It creates what ``infrastructure/edge.yaml`` needs and CloudFormation cannot make: a secret with the value of the header
by which the API recognizes CloudFront, and the key that signs the URLs of results. The rest of the parameters are
outputs of the Regions' stacks. See docs/how-to/edge.md.
"""

import argparse
import json
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from infrastructure.deployment.settings import DeployError, Settings, check, defaults, parse, read_settings
from infrastructure.deployment.stack import outputs_of, parameters_of

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudformation.type_defs import WaiterConfigTypeDef
    from mypy_boto3_secretsmanager import SecretsManagerClient

TEMPLATE: Final = "infrastructure/edge.yaml"
REGION: Final = "us-east-1"
MOST: Final = 4
"""Stacks that the template has parameters for."""

_PER_STACK: Final = tuple(
    f"{name}{n}"
    for n in range(1, MOST + 1)
    for name in ("Region", "ResultsBucket", "ReplicaBucket", "ReplicaRegion", "HealthCheck")
)
COLLECTED: Final = {"ApiDomain", "SecretArn", "SecretVersion", "PublicKey1", "PublicKey2", "SigningKey", *_PER_STACK}
"""Parameters that this module sets."""

_OTHER: Final = {"1": "2", "2": "1"}
_REPLICATION_S: Final = 60
_READ_AGAIN_S: Final = 60  # as the API does on a header that it does not know, see functions/runtime/edge.py
_WAIT: Final["WaiterConfigTypeDef"] = {
    "Delay": 15,
    "MaxAttempts": 240,
}  # an hour: a certificate is validated, and a distribution deployed


@dataclass(frozen=True)
class Origin:
    """A deployed stack of a Region.

    Attributes:
        environment: of samconfig.toml.
        region: of the stack.
        parameters: its parameters.
        outputs: its outputs.
        replica: name and Region of the bucket that replicates its results; None without one.
    """

    environment: str
    region: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    replica: tuple[str, str] | None


@dataclass(frozen=True)
class Secret:
    """The current version of the secret, see ``functions/runtime/edge.py``.

    Attributes:
        arn: in us-east-1.
        version: its ID.
        value: its keys. ``next_private_key`` is one that CloudFront may not know yet.
    """

    arn: str
    version: str
    value: Mapping[str, str]

    @property
    def private_key(self) -> str:
        """The newest key, in PEM."""
        return self.value.get("next_private_key") or self.value["private_key"]


@dataclass(frozen=True)
class Edge:
    """The stack of the edge, and what to change.

    Attributes:
        project: folder of samconfig.toml and the templates.
        settings: environment of the edge.
        environments: of the Regions' stacks.
        given: parameters of this call, which take precedence.
        confirm: returns whether to make the changes, given as text.
        dry_run: read from AWS and print the parameters, and change nothing.
    """

    project: Path
    settings: Settings
    environments: Sequence[str]
    given: Mapping[str, str]
    confirm: Callable[[str], bool]
    dry_run: bool = False

    def deploy(self) -> None:
        """Create or update the edge."""
        if not {**self._current, **self.settings.parameters, **self.given}.get("EdgeDomain"):
            example = "EdgeDomain=images.example.com HostedZoneId=Z0123456789"
            raise DeployError(f'EdgeDomain has no value. Use e.g. PARAMETERS="{example}".')
        self._finish(self._secret())

    def rotate_origin_secret(self) -> None:
        """Give the header that CloudFront sends to the API a new value. The API accepts the previous one, too.

        Raises:
            DeployError: CloudFront does not send the current value yet.
        """
        secret = self._deployed()
        origin_secret = secret.value["origin_secret"]
        if self._sent() != origin_secret:
            raise DeployError(
                "CloudFront does not send the current value yet. Run make deploy-edge without ROTATE first."
            )
        new = {"origin_secret": _origin_secret(), "previous_origin_secret": origin_secret}
        if self._write({**secret.value, **new}):
            time.sleep(_READ_AGAIN_S)
        self._finish(self._secret())

    def rotate_signing_key(self) -> None:
        """Add a key, and sign with it once CloudFront knows it. CloudFront accepts URLs of the previous one, too.

        Raises:
            DeployError: there are two keys already.
        """
        secret = self._deployed()
        if all(self._current[f"PublicKey{slot}"] for slot in _OTHER):
            raise DeployError("The edge has two signing keys. Remove the previous one with ROTATE=retire first.")
        self._write({**secret.value, "next_private_key": _private_key()})
        self._finish(self._secret())

    def retire_signing_key(self) -> None:
        """Remove the previous key: URLs signed with it no longer work.

        Raises:
            DeployError: the previous key may still be in use.
        """
        secret = self._deployed()
        if "next_private_key" in secret.value:
            raise DeployError("The API does not sign with the new key yet. Run make deploy-edge without ROTATE first.")
        self._finish(secret, retire=True)

    # ---- What is deployed

    @cached_property
    def _session(self) -> boto3.Session:
        return boto3.Session(profile_name=self.settings.profile, region_name=REGION)

    @cached_property
    def _secrets(self) -> "SecretsManagerClient":
        return self._session.client("secretsmanager")

    @cached_property
    def _cloudformation(self) -> "CloudFormationClient":
        return self._session.client("cloudformation")

    @property
    def _stack(self) -> Mapping[str, Any] | None:
        """The deployed stack; None before the first deployment."""
        found = _described(self._cloudformation, self.settings.stack)
        return None if found is None or found["StackStatus"] == "REVIEW_IN_PROGRESS" else found

    @cached_property
    def _current(self) -> Mapping[str, str]:
        """Parameters of the deployed stack."""
        return parameters_of(self._stack or {})

    @property
    def _outputs(self) -> Mapping[str, str]:
        return outputs_of(self._stack or {})

    @cached_property
    def _origins(self) -> list[Origin]:
        """The Regions' stacks, those with a replica first, as the template requires."""
        origins = [self._origin(name) for name in self.environments]
        domains = {origin.parameters["ApiDomain"] for origin in origins}
        if len(domains) > 1:
            raise DeployError(
                f"The stacks have different values of ApiDomain: {', '.join(sorted(domains))}. Use one for all."
            )
        regions = [origin.region for origin in origins]
        if twice := next((region for region in regions if regions.count(region) > 1), None):
            raise DeployError(f"Two of the stacks are in {twice}. The edge takes one stack of each Region.")
        return sorted(origins, key=lambda origin: origin.replica is None)

    def _origin(self, environment: str) -> Origin:
        settings = read_settings(environment, self.project)
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
        stack = _described(session.client("cloudformation"), settings.stack)
        if stack is None:
            raise DeployError(
                f"There is no stack {settings.stack} in {settings.region}. Deploy it first: "
                f"make deploy ENV={environment}."
            )
        parameters, outputs = parameters_of(stack), outputs_of(stack)
        if not parameters.get("ApiDomain"):
            raise DeployError(
                f"The stack {settings.stack} in {settings.region} has no ApiDomain. Deploy it with one first: "
                f'make deploy ENV={environment} PARAMETERS="ApiDomain=origin.example.com ...".'
            )
        replica = None
        if bucket := parameters.get("ResultsReplicaBucketArn", "").rpartition(":")[2]:
            location = session.client("s3").get_bucket_location(Bucket=bucket)["LocationConstraint"]
            replica = bucket, location or "us-east-1"  # S3 has no name for its first Region
        return Origin(environment, settings.region, parameters, outputs, replica)

    # ---- Secrets

    def _deployed(self) -> Secret:
        """Return the secret of the deployed edge.

        Raises:
            DeployError: there is no edge, or it has other Regions than this call.
        """
        if not self._current:
            raise DeployError("The edge is not deployed. Run make deploy-edge without ROTATE first.")
        deployed = {self._current[f"Region{n}"] for n in range(1, MOST + 1)} - {""}
        if deployed != {origin.region for origin in self._origins}:
            regions = ", ".join(sorted(deployed))
            raise DeployError(f"Name the environments of all Regions of the edge in ENVS, and no other: {regions}.")
        return self._secret()

    def _secret(self) -> Secret:
        """Return the secret, with a replica in each Region. It is created if missing."""
        name, regions = self.settings.stack, [origin.region for origin in self._origins]
        found = self._described_secret(name)
        value = {"origin_secret": _origin_secret(), "private_key": _private_key()}
        if found is None and self._announced(f"create secret {name}"):
            text = json.dumps({**value, "url": "", "key_pair_id": ""})
            self._secrets.create_secret(Name=name, Description="Keys of the edge", SecretString=text)
        has = {REGION, *(one["Region"] for one in (found or {}).get("ReplicationStatus", ()))}
        lacks = [region for region in regions if region not in has]
        if lacks and self._announced(f"replicate secret {name} to {', '.join(lacks)}"):
            self._secrets.replicate_secret_to_regions(
                SecretId=name, AddReplicaRegions=[{"Region": region} for region in lacks]
            )
        if self.dry_run and found is None:
            return Secret(f"<ARN of {name}>", "<version>", value)
        if not self.dry_run:
            self._wait_for_replicas(name)
        version = self._secrets.get_secret_value(SecretId=name)
        return Secret(version["ARN"], version["VersionId"], json.loads(version["SecretString"]))

    def _write(self, value: Mapping[str, str]) -> bool:
        """Write a new version of the secret; return False in a dry run."""
        if not self._announced(f"write secret {self.settings.stack}"):
            return False
        self._secrets.put_secret_value(SecretId=self.settings.stack, SecretString=json.dumps(value))
        self._wait_for_replicas(self.settings.stack)
        return True

    def _sent(self) -> str:
        """Return the origin secret that CloudFront was deployed with; empty if its version is not kept any more."""
        try:
            version = self._secrets.get_secret_value(
                SecretId=self.settings.stack, VersionId=self._current["SecretVersion"]
            )
        except self._secrets.exceptions.ResourceNotFoundException:
            return ""
        return str(json.loads(version["SecretString"])["origin_secret"])

    def _described_secret(self, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._secrets.describe_secret(SecretId=name)
        except self._secrets.exceptions.ResourceNotFoundException:
            return None
        return found

    def _wait_for_replicas(self, name: str) -> None:
        end = time.monotonic() + _REPLICATION_S
        while True:
            replicas = self._secrets.describe_secret(SecretId=name).get("ReplicationStatus", [])
            late = [one for one in replicas if one["Status"] != "InSync"]
            if not late:
                return
            if late[0]["Status"] == "Failed" or time.monotonic() > end:
                reason = late[0].get("StatusMessage", late[0]["Status"])
                raise DeployError(
                    f"The secret {name} is not replicated to {late[0]['Region']}: {reason}. "
                    "Correct that, and run the command again."
                )
            time.sleep(2)

    def _announced(self, text: str) -> bool:
        """Print a change, and return whether to make it."""
        print(f"{'would ' if self.dry_run else ''}{text}", flush=True)
        return not self.dry_run

    # ---- Deployment

    def _finish(self, secret: Secret, *, retire: bool = False) -> None:
        """Deploy, let the API sign with the newest key, and print what the Regions need."""
        key = _public_key(secret.private_key)
        deployed = {slot: self._current.get(f"PublicKey{slot}", "") for slot in _OTHER}
        slot = next((one for one in _OTHER if deployed[one] == key), None) or next(
            (one for one in _OTHER if not deployed[one]), None
        )
        if slot is None:
            raise DeployError("The edge has two signing keys, and the secret a third. Restore the secret's version.")
        kept = {name: value for name, value in self._current.items() if name in defaults(self.project, TEMPLATE)}
        values = {**kept, **self.settings.parameters, **self.given, **self._collected(), "SigningKey": slot}
        values |= {f"PublicKey{slot}": key, f"PublicKey{_OTHER[slot]}": "" if retire else deployed[_OTHER[slot]]}
        is_sent = bool(self._current) and self._sent() == secret.value["origin_secret"]
        values |= {"SecretArn": secret.arn, "SecretVersion": kept["SecretVersion"] if is_sent else secret.version}
        for name, value in values.items():
            if value and not name.startswith("PublicKey"):
                print(f"  {name}={value}")
        if self.dry_run or not self._deploy(values):
            return
        url, key_pair_id = f"https://{values['EdgeDomain']}", self._outputs["KeyPairId"]
        signs = {**secret.value, "url": url, "key_pair_id": key_pair_id, "private_key": secret.private_key}
        signs.pop("next_private_key", None)
        if signs != secret.value:
            if kept:  # in an update, CloudFormation does not wait until CloudFront knows a new key everywhere
                deployed_everywhere = self._session.client("cloudfront").get_waiter("distribution_deployed")
                deployed_everywhere.wait(Id=self._outputs["DistributionId"])
            self._write(signs)
        self._print_next_steps(secret)

    def _collected(self) -> dict[str, str]:
        values = dict.fromkeys(_PER_STACK, "")
        for n, origin in enumerate(self._origins, start=1):
            bucket, region = origin.replica or ("", "")
            values |= {
                f"Region{n}": origin.region,
                f"ResultsBucket{n}": origin.outputs["ResultsBucket"],
                f"HealthCheck{n}": origin.outputs.get("ApiHealthCheckId", ""),
                f"ReplicaBucket{n}": bucket,
                f"ReplicaRegion{n}": region,
            }
        return {"ApiDomain": self._origins[0].parameters["ApiDomain"], **values}

    def _deploy(self, values: Mapping[str, str]) -> bool:
        """Create or update the stack; return False if the changes are not confirmed."""
        stack, created = self.settings.stack, self._stack is None
        change_set = self._cloudformation.create_change_set(
            StackName=stack,
            ChangeSetName=f"edge-{time.time_ns()}",
            ChangeSetType="CREATE" if created else "UPDATE",
            TemplateBody=(self.project / TEMPLATE).read_text(),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()],
            Tags=[{"Key": key, "Value": value} for key, value in self.settings.tags.items()],
        )["Id"]
        try:
            self._cloudformation.get_waiter("change_set_create_complete").wait(
                ChangeSetName=change_set, WaiterConfig={"Delay": 2}
            )
        except WaiterError as error:
            reason = self._cloudformation.describe_change_set(ChangeSetName=change_set).get("StatusReason", str(error))
            self._cloudformation.delete_change_set(ChangeSetName=change_set)
            if "didn't contain changes" in reason or "No updates" in reason:
                print(f"The stack {stack} is up to date.")
                return True
            raise DeployError(f"CloudFormation rejects the change of {stack}: {reason}") from error
        if not self.confirm(self._shown(change_set)):
            self._cloudformation.delete_change_set(ChangeSetName=change_set)
            return False
        self._cloudformation.execute_change_set(ChangeSetName=change_set)
        try:
            if created:
                self._cloudformation.get_waiter("stack_create_complete").wait(StackName=stack, WaiterConfig=_WAIT)
            else:
                self._cloudformation.get_waiter("stack_update_complete").wait(StackName=stack, WaiterConfig=_WAIT)
        except WaiterError as error:
            remedy = f" Delete the stack {stack} before the next attempt." if created else ""
            raise DeployError(f"{stack} could not be deployed: {self._failure()}{remedy}") from error
        return True

    def _shown(self, change_set: str) -> str:
        pages = self._cloudformation.get_paginator("describe_change_set").paginate(ChangeSetName=change_set)
        changes = [one["ResourceChange"] for page in pages for one in page["Changes"]]
        rows = (
            f"{one['Action']:8} {one['LogicalResourceId']} ({one['ResourceType']})"
            + (", replacement" if one.get("Replacement") == "True" else "")
            for one in changes
        )
        return "\n".join(rows)

    def _failure(self) -> str:
        events = self._cloudformation.describe_stack_events(StackName=self.settings.stack)["StackEvents"]
        failed = [one for one in events if one["ResourceStatus"].endswith("_FAILED")]
        if not failed:
            return "see its events."
        first = failed[-1]
        return f"{first['LogicalResourceId']}: {first.get('ResourceStatusReason', first['ResourceStatus'])}."

    def _print_next_steps(self, secret: Secret) -> None:
        values, outputs = parameters_of(self._stack or {}), self._outputs
        wanted = {
            "EdgeDomain": values["EdgeDomain"],
            "EdgeSecretArn": secret.arn,
            "EdgeDistributionId": outputs["DistributionId"],
        }
        if not values.get("HostedZoneId"):
            print(f"\nPoint {values['EdgeDomain']} to {outputs['DistributionDomain']} with a CNAME or alias record.")
        outdated = [
            one.environment for one in self._origins if any(one.parameters.get(k) != v for k, v in wanted.items())
        ]
        if outdated:
            print("\nDeploy the Regions with the parameters of the edge:")
        for environment in outdated:
            print(f'  make deploy ENV={environment} PARAMETERS="{" ".join(f"{k}={v}" for k, v in wanted.items())}"')


ROTATIONS: Final[Mapping[str, Callable[[Edge], None]]] = {
    "origin-secret": Edge.rotate_origin_secret,
    "signing-key": Edge.rotate_signing_key,
    "retire": Edge.retire_signing_key,
}


def _described(cloudformation: Any, stack: str) -> Mapping[str, Any] | None:
    """Return a stack; None if it does not exist."""
    try:
        found: Mapping[str, Any] = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return found


def _origin_secret() -> str:
    return secrets.token_urlsafe(48)


def _private_key() -> str:
    """Return a key of the kind that CloudFront accepts, in PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _public_key(private_key: str) -> str:
    key = serialization.load_pem_private_key(private_key.encode(), password=None).public_key()
    text = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return text.decode().rstrip("\n")


def _ask(changes: str) -> bool:
    print(changes)
    return input("Make these changes? [y/N] ").strip().lower() in ("y", "yes")


def _show(changes: str) -> bool:
    print(changes)
    return True


def main(words: Sequence[str] | None = None) -> None:
    """Deploy the edge as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m infrastructure.edge", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", default="", help="Environments of the Regions' stacks, e.g. 'us-east-1 eu-west-1'.")
    parser.add_argument("--config-env", default="edge", help="Environment of the edge in samconfig.toml.")
    parser.add_argument(
        "--parameters", default="", help="Parameters of the edge, e.g. 'EdgeDomain=images.example.com'."
    )
    parser.add_argument(
        "--rotate",
        choices=ROTATIONS,
        help="Replace the origin secret, add a signing key, or retire the previous signing key.",
    )
    parser.add_argument("--yes", action="store_true", help="Deploy without asking for confirmation.")
    parser.add_argument(
        "--dry-run", action="store_true", help="Read from AWS and print the parameters, change nothing."
    )
    parser.add_argument("--project", type=Path, default=Path(), help="Directory of samconfig.toml.")
    arguments = parser.parse_args(words)
    try:
        edge = _edge(arguments)
        ROTATIONS.get(arguments.rotate, Edge.deploy)(edge)
    except (DeployError, OSError) as error:
        sys.exit(f"deploy-edge: {error}")
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"deploy-edge: AWS rejects the call: {error}")


def _edge(arguments: argparse.Namespace) -> Edge:
    project = arguments.project
    environments = arguments.envs.replace(",", " ").split()
    if not 1 <= len(environments) <= MOST:
        raise DeployError(f'Name 1 to {MOST} environments of samconfig.toml, e.g. ENVS="us-east-1 eu-west-1".')
    settings = read_settings(arguments.config_env, project, template=TEMPLATE)
    if settings.region != REGION:
        raise DeployError(
            f"Environment {arguments.config_env!r} is in {settings.region}. The edge must be in {REGION}."
        )
    given = parse(shlex.split(arguments.parameters), defaults(project, TEMPLATE))
    check({**settings.parameters, **given}, project, TEMPLATE)
    if collected := sorted(COLLECTED & {*given, *settings.parameters}):
        raise DeployError(f"{collected[0]} is read from the Regions' stacks and the secret. Leave it out.")
    return Edge(project, settings, environments, given, _show if arguments.yes else _ask, arguments.dry_run)


if __name__ == "__main__":
    main()
