"""Stacks whose references are what AWS returns: names and ARNs of full length."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from tests.unit.template.test_template import Stack

NAME_PROPERTIES: Final = {
    **{f"AWS::CloudWatch::{kind}": "AlarmName" for kind in ("Alarm", "CompositeAlarm")},
    **{f"AWS::ElasticLoadBalancingV2::{kind}": "Name" for kind in ("LoadBalancer", "TargetGroup")},
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::ECS::CapacityProvider": "Name",
    "AWS::ECS::Cluster": "ClusterName",
    "AWS::IAM::Role": "RoleName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SageMaker::Endpoint": "EndpointName",
    "AWS::SageMaker::EndpointConfig": "EndpointConfigName",
    "AWS::SageMaker::Model": "ModelName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::StepFunctions::StateMachine": "StateMachineName",
}
"""Properties with the name of a resource, which no other one of its type may have."""

LONGEST_NAMES: Final = {
    **dict.fromkeys(("AWS::Events::Rule", "AWS::IAM::Role", "AWS::Lambda::Function"), 64),
    **{f"AWS::SageMaker::{kind}": 63 for kind in ("Model", "EndpointConfig")},
    "AWS::S3::Bucket": 63,
    "AWS::SQS::Queue": 80,
    "AWS::IAM::InstanceProfile": 128,
}
"""To which CloudFormation shortens the names that it generates; other names have up to 255 characters."""

_UUID: Final = "01234567-89ab-cdef-0123-456789abcdef"

REFERENCES: Final[Mapping[str, Mapping[str, str]]] = {
    "AWS::ApiGatewayV2::Api": {"Ref": "a1b2c3d4e5", "ApiEndpoint": "https://a1b2c3d4e5.execute-api.{region}.{suffix}"},
    "AWS::ApiGatewayV2::DomainName": {
        "Ref": "{DomainName}",
        "RegionalDomainName": "d-a1b2c3d4e5.execute-api.{region}.{suffix}",
        "RegionalHostedZoneId": "Z0123456789ABCDEFGHIJ",
    },
    "AWS::AppConfig::Application": {"Ref": "a1b2c3d"},
    "AWS::AppConfig::ConfigurationProfile": {"Ref": "a1b2c3d"},
    "AWS::AppConfig::HostedConfigurationVersion": {"VersionNumber": "123456"},
    "AWS::ApplicationAutoScaling::ScalableTarget": {"Ref": "{ResourceId}|{ScalableDimension}|{ServiceNamespace}"},
    "AWS::ApplicationAutoScaling::ScalingPolicy": {
        "Ref": "{arn}:autoscaling:{region}:{account}:scalingPolicy:" + _UUID + ":resource/x:policyName/{PolicyName}"
    },
    "AWS::AutoScaling::AutoScalingGroup": {"Ref": "{name}"},
    "AWS::CertificateManager::Certificate": {"Ref": "{arn}:acm:{region}:{account}:certificate/" + _UUID},
    "AWS::CloudFormation::Stack": {"Ref": "{arn}:cloudformation:{region}:{account}:stack/{name}/" + _UUID},
    "AWS::CloudWatch::Alarm": {"Ref": "{name}", "Arn": "{arn}:cloudwatch:{region}:{account}:alarm:{name}"},
    "AWS::CloudWatch::CompositeAlarm": {"Ref": "{name}", "Arn": "{arn}:cloudwatch:{region}:{account}:alarm:{name}"},
    "AWS::CloudWatch::Dashboard": {"Ref": "{name}"},
    "AWS::DynamoDB::Table": {"Ref": "{name}", "Arn": "{arn}:dynamodb:{region}:{account}:table/{name}"},
    "AWS::EC2::LaunchTemplate": {"Ref": "lt-{hex}", "LatestVersionNumber": "12"},
    "AWS::EC2::RouteTable": {"Ref": "rtb-{hex}"},
    "AWS::EC2::SecurityGroup": {"Ref": "sg-{hex}", "GroupId": "sg-{hex}"},
    "AWS::EC2::Subnet": {"Ref": "subnet-{hex}"},
    "AWS::EC2::VPC": {"Ref": "vpc-{hex}"},
    "AWS::ECS::CapacityProvider": {"Ref": "{name}"},
    "AWS::ECS::Cluster": {"Ref": "{name}", "Arn": "{arn}:ecs:{region}:{account}:cluster/{name}"},
    "AWS::ECS::Service": {"Ref": "{arn}:ecs:{region}:{account}:service/{Cluster}/{name}", "Name": "{name}"},
    "AWS::ECS::TaskDefinition": {"Ref": "{arn}:ecs:{region}:{account}:task-definition/{Family}:12"},
    "AWS::ElasticLoadBalancingV2::LoadBalancer": {
        "Ref": "{arn}:elasticloadbalancing:{region}:{account}:loadbalancer/app/load-balancer/0123456789abcdef",
        "DNSName": "internal-load-balancer-1234567890.{region}.elb.{suffix}",
    },
    "AWS::ElasticLoadBalancingV2::TargetGroup": {
        "Ref": "{arn}:elasticloadbalancing:{region}:{account}:targetgroup/targets/0123456789abcdef"
    },
    "AWS::Events::Rule": {"Arn": "{arn}:events:{region}:{account}:rule/{name}"},
    "AWS::IAM::InstanceProfile": {"Arn": "{arn}:iam::{account}:instance-profile/{name}"},
    "AWS::IAM::Role": {"Ref": "{name}", "Arn": "{arn}:iam::{account}:role/{name}"},
    "AWS::KMS::Key": {"Ref": _UUID, "Arn": "{arn}:kms:{region}:{account}:key/" + _UUID},
    "AWS::Lambda::Alias": {"Ref": "{arn}:lambda:{region}:{account}:function:{FunctionName}:{Name}"},
    "AWS::Lambda::Function": {"Ref": "{name}", "Arn": "{arn}:lambda:{region}:{account}:function:{name}"},
    "AWS::Lambda::Version": {
        "Ref": "{arn}:lambda:{region}:{account}:function:{FunctionName}:1234",
        "Version": "1234",
    },
    "AWS::Logs::LogGroup": {"Ref": "{name}", "Arn": "{arn}:logs:{region}:{account}:log-group:{name}:*"},
    "AWS::Route53::HealthCheck": {"Ref": _UUID},
    "AWS::S3::Bucket": {"Ref": "{name}", "Arn": "{arn}:s3:::{name}"},
    "AWS::SageMaker::Endpoint": {"EndpointName": "{name}"},
    "AWS::SageMaker::EndpointConfig": {"EndpointConfigName": "{name}"},
    "AWS::SageMaker::Model": {
        "Ref": "{arn}:sagemaker:{region}:{account}:model/{name}",
        "ModelName": "{name}",
    },
    "AWS::SecretsManager::Secret": {
        "Ref": "{arn}:secretsmanager:{region}:{account}:secret:{logical}-a1B2c3d4E5f6-a1B2c3"
    },
    "AWS::SNS::Topic": {"Ref": "{arn}:sns:{region}:{account}:{name}"},
    "AWS::SQS::Queue": {
        "Ref": "https://sqs.{region}.{suffix}/{account}/{name}",
        "Arn": "{arn}:sqs:{region}:{account}:{name}",
        "QueueName": "{name}",
    },
    "AWS::StepFunctions::StateMachine": {
        "Ref": "{arn}:states:{region}:{account}:stateMachine:{name}",
        "StateMachineRevisionId": _UUID,
    },
    "AWS::StepFunctions::StateMachineAlias": {"Ref": "{arn}:states:{region}:{account}:stateMachine:{machine}:{Name}"},
    "AWS::StepFunctions::StateMachineVersion": {"Ref": "{StateMachineArn}:12"},
}
"""What ``Ref`` and ``Fn::GetAtt`` return, by resource type, as the template reference of CloudFormation says."""


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class Physical(Stack):
    """The template with these parameters, in which each reference is a name or an ARN as AWS has it.

    Attributes:
        names: physical name of each resource by logical ID.
    """

    def __init__(self, parameters: Mapping[str, Any], *context: Any) -> None:
        super().__init__(parameters, *context)
        self.names = {name: self._name(name) for name in self._made}
        for child in self._nested.values():
            assert isinstance(child, Physical)
            self.names |= child.names
        for machine in self.of_type("AWS::StepFunctions::StateMachine"):
            for name, value in machine.pop("DefinitionSubstitutions", {}).items():
                machine["DefinitionString"] = machine["DefinitionString"].replace(f"${{{name}}}", value)

    def _ref(self, name: str) -> Any:
        value = super()._ref(name)
        return self._returned(name, "Ref") if value == f"<{name}>" else value

    def _attribute(self, name: str, attribute: str) -> str:
        is_output = attribute.startswith("Outputs.")
        return super()._attribute(name, attribute) if is_output else self._returned(name, attribute)

    def _returned(self, name: str, attribute: str) -> str:
        resource = self._template["Resources"][name]
        kind, given = resource["Type"], resource.get("Properties", {})
        text = REFERENCES[kind][attribute]
        used = {field for field in re.findall(r"\{(\w+)\}", text) if field in given}
        values = {field: self._resolve(given[field]) for field in used}
        machine = kind == "AWS::StepFunctions::StateMachineAlias" and self._resolve(given["DeploymentPreference"])
        return text.format(
            **values,
            arn=f"arn:{self._pseudo['AWS::Partition']}",
            region=self._pseudo["AWS::Region"],
            account=self._pseudo["AWS::AccountId"],
            suffix=self._pseudo["AWS::URLSuffix"],
            logical=name,
            hex=_digest(name)[:17],
            name=self._name(name),
            machine=machine and machine["StateMachineVersionArn"].split(":")[-2],
        )

    def _name(self, name: str) -> str:
        """Return the name of a resource: that in the template, or the longest one that CloudFormation generates."""
        resource = self._template["Resources"][name]
        kind, given = resource["Type"], resource.get("Properties", {})
        if NAME_PROPERTIES.get(kind) in given:
            return str(self._resolve(given[NAME_PROPERTIES[kind]]))
        longest = LONGEST_NAMES.get(kind, 255)
        generated = f"{self._pseudo['AWS::StackName']}-{name}"[: longest - 14] + f"-{_digest(name)[:13].upper()}"
        return generated.lower() if kind == "AWS::S3::Bucket" else generated
