"""What services say about the resources of a stack."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jmespath  # type: ignore[import-untyped]
from botocore.exceptions import ClientError


@dataclass(frozen=True)
class Question:
    """A call that describes a resource.

    Attributes:
        service: name of its client.
        operation: name of the client's method.
        arguments: of the call. Here and in the path, ``{id}`` is the physical ID, ``{name}`` its end, and other names
            are properties.
        path: JMESPath of the description in the response; nothing or an empty list means that it does not exist.
    """

    service: str
    operation: str
    arguments: Mapping[str, Any]
    path: str = "@"


def _ec2(operation: str, argument: str, found: str) -> Question:
    return Question("ec2", operation, {argument: ["{id}"]}, found)


QUESTIONS: Final[Mapping[str, Question]] = {
    "AWS::ApiGatewayV2::Api": Question("apigatewayv2", "get_api", {"ApiId": "{id}"}),
    "AWS::ApiGatewayV2::Stage": Question("apigatewayv2", "get_stage", {"ApiId": "{ApiId}", "StageName": "{id}"}),
    "AWS::CloudFormation::Stack": Question(
        "cloudformation", "describe_stacks", {"StackName": "{id}"}, "Stacks[?StackStatus != 'DELETE_COMPLETE']"
    ),
    "AWS::CloudWatch::Alarm": Question("cloudwatch", "describe_alarms", {"AlarmNames": ["{id}"]}, "MetricAlarms"),
    "AWS::CloudWatch::CompositeAlarm": Question(
        "cloudwatch",
        "describe_alarms",
        {"AlarmNames": ["{id}"], "AlarmTypes": ["CompositeAlarm"]},
        "CompositeAlarms",
    ),
    "AWS::CloudWatch::Dashboard": Question("cloudwatch", "get_dashboard", {"DashboardName": "{id}"}),
    "AWS::DynamoDB::Table": Question("dynamodb", "describe_table", {"TableName": "{id}"}, "Table"),
    "AWS::EC2::FlowLog": _ec2("describe_flow_logs", "FlowLogIds", "FlowLogs"),
    "AWS::EC2::RouteTable": _ec2("describe_route_tables", "RouteTableIds", "RouteTables"),
    "AWS::EC2::SecurityGroup": _ec2("describe_security_groups", "GroupIds", "SecurityGroups"),
    "AWS::EC2::Subnet": _ec2("describe_subnets", "SubnetIds", "Subnets"),
    "AWS::EC2::SubnetRouteTableAssociation": Question(
        "ec2",
        "describe_route_tables",
        {"Filters": [{"Name": "association.subnet-id", "Values": ["{SubnetId}"]}]},
        "RouteTables[].Associations[] | [?RouteTableAssociationId == '{id}']",
    ),
    "AWS::EC2::VPC": _ec2("describe_vpcs", "VpcIds", "Vpcs"),
    "AWS::EC2::VPCEndpoint": _ec2("describe_vpc_endpoints", "VpcEndpointIds", "VpcEndpoints[?State != 'deleted']"),
    "AWS::ECR::Repository": Question("ecr", "describe_repositories", {"repositoryNames": ["{id}"]}, "repositories"),
    "AWS::ECS::Cluster": Question(
        "ecs", "describe_clusters", {"clusters": ["{id}"]}, "clusters[?status == 'ACTIVE'].clusterName"
    ),
    "AWS::ECS::Service": Question(
        "ecs",
        "describe_services",
        {"cluster": "{Cluster}", "services": ["{id}"]},
        "services[?status == 'ACTIVE'].[serviceName, taskDefinition, desiredCount]",
    ),
    "AWS::ECS::TaskDefinition": Question(
        "ecs", "describe_task_definition", {"taskDefinition": "{id}"}, "taskDefinition.status == 'ACTIVE' || `null`"
    ),
    "AWS::Events::Rule": Question("events", "describe_rule", {"Name": "{id}"}),
    "AWS::IAM::InstanceProfile": Question("iam", "get_instance_profile", {"InstanceProfileName": "{id}"}),
    "AWS::IAM::Policy": Question(
        "iam", "get_role_policy", {"RoleName": "{Roles[0]}", "PolicyName": "{PolicyName}"}, "PolicyDocument"
    ),
    "AWS::IAM::Role": Question("iam", "get_role", {"RoleName": "{id}"}, "Role"),
    "AWS::KMS::Key": Question("kms", "describe_key", {"KeyId": "{id}"}, "KeyMetadata"),
    "AWS::Lambda::Alias": Question("lambda", "get_alias", {"FunctionName": "{FunctionName}", "Name": "{Name}"}),
    "AWS::Lambda::EventInvokeConfig": Question(
        "lambda", "get_function_event_invoke_config", {"FunctionName": "{FunctionName}"}
    ),
    "AWS::Lambda::Function": Question("lambda", "get_function_configuration", {"FunctionName": "{id}"}),
    "AWS::Lambda::Permission": Question(
        "lambda", "get_policy", {"FunctionName": "{FunctionName}"}, "contains(Policy, '{Principal}') && Policy"
    ),
    "AWS::Lambda::Version": Question("lambda", "get_function_configuration", {"FunctionName": "{id}"}),
    "AWS::Logs::LogGroup": Question(
        "logs",
        "describe_log_groups",
        {"logGroupNamePrefix": "{id}"},
        "logGroups[?logGroupName == '{id}'].[logGroupName, retentionInDays]",
    ),
    "AWS::Logs::MetricFilter": Question(
        "logs",
        "describe_metric_filters",
        {"logGroupName": "{LogGroupName}", "filterNamePrefix": "{id}"},
        "metricFilters[?filterName == '{id}']",
    ),
    "AWS::Route53::HealthCheck": Question("route53", "get_health_check", {"HealthCheckId": "{id}"}),
    "AWS::Route53::RecordSet": Question(
        "route53",
        "list_resource_record_sets",
        {"HostedZoneId": "{HostedZoneId}", "StartRecordName": "{Name}"},
        "ResourceRecordSets[?starts_with(Name, '{Name}') && Type == '{Type}']",
    ),
    "AWS::S3::Bucket": Question("s3", "get_bucket_acl", {"Bucket": "{id}"}, "Owner"),
    "AWS::SNS::Subscription": Question("sns", "get_subscription_attributes", {"SubscriptionArn": "{id}"}),
    "AWS::SNS::Topic": Question("sns", "get_topic_attributes", {"TopicArn": "{id}"}),
    "AWS::SQS::Queue": Question("sqs", "get_queue_attributes", {"QueueUrl": "{id}", "AttributeNames": ["QueueArn"]}),
    "AWS::SQS::QueuePolicy": Question(
        "sqs", "get_queue_attributes", {"QueueUrl": "{Queues[0]}", "AttributeNames": ["Policy"]}, "Attributes.Policy"
    ),
    "AWS::SageMaker::Endpoint": Question("sagemaker", "describe_endpoint", {"EndpointName": "{EndpointName}"}),
    "AWS::SageMaker::EndpointConfig": Question(
        "sagemaker", "describe_endpoint_config", {"EndpointConfigName": "{name}"}
    ),
    "AWS::SageMaker::Model": Question("sagemaker", "describe_model", {"ModelName": "{name}"}),
    "AWS::SecretsManager::Secret": Question("secretsmanager", "describe_secret", {"SecretId": "{id}"}),
    "AWS::StepFunctions::StateMachine": Question(
        "stepfunctions", "describe_state_machine", {"stateMachineArn": "{id}"}
    ),
    "AWS::StepFunctions::StateMachineAlias": Question(
        "stepfunctions", "describe_state_machine_alias", {"stateMachineAliasArn": "{id}"}
    ),
    "AWS::StepFunctions::StateMachineVersion": Question(
        "stepfunctions", "describe_state_machine", {"stateMachineArn": "{id}"}
    ),
}
"""How to ask a service for a resource of each type."""

NOT_MADE: Final = frozenset(
    {
        "AWS::ApiGatewayV2::ApiMapping",
        "AWS::ApiGatewayV2::DomainName",
        "AWS::AppConfig::Application",
        "AWS::AppConfig::ConfigurationProfile",
        "AWS::AppConfig::HostedConfigurationVersion",
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "AWS::Budgets::Budget",
        "AWS::CertificateManager::Certificate",
        "AWS::CloudFront::CachePolicy",
        "AWS::CloudFront::Distribution",
        "AWS::CloudFront::Function",
        "AWS::CloudFront::KeyGroup",
        "AWS::CloudFront::OriginAccessControl",
        "AWS::CloudFront::PublicKey",
        "AWS::CloudFront::ResponseHeadersPolicy",
        "AWS::DynamoDB::GlobalTable",
        "AWS::EC2::SecurityGroupEgress",
        "AWS::ECS::ClusterCapacityProviderAssociations",
        "AWS::ElasticLoadBalancingV2::Listener",
        "AWS::ElasticLoadBalancingV2::LoadBalancer",
        "AWS::ElasticLoadBalancingV2::TargetGroup",
        "AWS::IAM::OIDCProvider",
        "AWS::Logs::Delivery",
        "AWS::Logs::DeliveryDestination",
        "AWS::Logs::DeliverySource",
        "AWS::Logs::QueryDefinition",
        "AWS::S3::BucketPolicy",
        "AWS::SNS::TopicPolicy",
        "AWS::WAFv2::LoggingConfiguration",
        "AWS::WAFv2::WebACL",
    }
)
"""Types that the embedded cloud cannot make. It says why in ``EmbeddedCloud.skipped``."""

_ABSENT: Final = re.compile(r"NotFound|NoSuch|NonExistent|DoesNotExist|404")


def description(client: Callable[[str], Any], resource_type: str, values: Mapping[str, Any]) -> Any:
    """Return how a service describes a resource; None if there is no such resource.

    Args:
        client: returns the client of a service.
        resource_type: type in CloudFormation.
        values: properties of the resource, its physical ID as ``id``, and the end of that as ``name``.

    Raises:
        ClientError: the service rejects the call for another reason.
    """
    question = QUESTIONS[resource_type]
    try:
        response = getattr(client(question.service), question.operation)(**_filled(question.arguments, values))
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
        if _ABSENT.search(code) or "could not find" in message.lower() or "does not exist" in message.lower():
            return None
        raise
    response.pop("ResponseMetadata", None)
    return jmespath.search(_filled(question.path, values), response) or None


def _filled(arguments: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(arguments, Mapping):
        return {name: _filled(item, values) for name, item in arguments.items()}
    if isinstance(arguments, list):
        return [_filled(item, values) for item in arguments]
    return re.sub(r"\{([^}]+)\}", lambda match: str(jmespath.search(match[1], values)), arguments)
