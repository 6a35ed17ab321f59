"""CloudFormation: resource types and properties that moto silently drops."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Stack
from moto.core.common_models import CloudFormationModel
from moto.dynamodb.models.table import Table
from moto.logs.models import LogGroup
from moto.s3.models import FakeBucket
from moto.sqs.models import Queue

from embedded_cloud.moto_patches import apigateway, versions
from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running

NO_LOAD_BALANCER = "services behind a load balancer do not run; pbr ui serves the web page"

DEPLOYED_AT_ONCE = "aliases point to the deployed version at once"
NOT_STORED = "not stored; a changed configuration gets the next number"

# Ignored resource types and properties ("" means the whole type), with the reason.
IGNORED = {
    "AWS::ApiGatewayV2::Stage": {
        "AccessLogSettings": "requests are not logged",
        "DefaultRouteSettings": "requests are not throttled, and not measured by route",
    },
    "AWS::AppConfig::Application": {"": NOT_STORED},
    "AWS::AppConfig::ConfigurationProfile": {"": NOT_STORED},
    "AWS::AppConfig::HostedConfigurationVersion": {"": NOT_STORED},
    "AWS::ApplicationAutoScaling::ScalableTarget": {"": "the number of processes does not change"},
    "AWS::ApplicationAutoScaling::ScalingPolicy": {"": "the number of processes does not change"},
    "AWS::AutoScaling::AutoScalingGroup": {"": "stored, but tasks run on this machine"},
    "AWS::Budgets::Budget": {"": "nothing costs money"},
    "AWS::CodeDeploy::Application": {"": DEPLOYED_AT_ONCE},
    "AWS::CodeDeploy::DeploymentGroup": {"": DEPLOYED_AT_ONCE},
    "AWS::DynamoDB::Table": {
        "TimeToLiveSpecification": "stored, but expired items are never deleted",
        "SSESpecification": "items are not encrypted",
    },
    "AWS::EC2::FlowLog": {"": "stored, but no traffic is logged"},
    "AWS::EC2::LaunchTemplate": {"": "stored, but tasks run on this machine"},
    "AWS::EC2::RouteTable": {"": "stored, but tasks share this machine's network"},
    "AWS::EC2::SecurityGroup": {"": "stored, but tasks share this machine's network"},
    "AWS::EC2::SecurityGroupEgress": {"": "tasks share this machine's network"},
    "AWS::EC2::Subnet": {"": "stored, but tasks share this machine's network"},
    "AWS::EC2::VPC": {"": "stored, but tasks share this machine's network"},
    "AWS::EC2::VPCEndpoint": {"": "stored, but tasks share this machine's network"},
    "AWS::ECS::CapacityProvider": {"": "tasks run on this machine"},
    "AWS::ECS::Cluster": {"ClusterSettings": "nothing is measured"},
    "AWS::ECS::ClusterCapacityProviderAssociations": {"": "tasks run on this machine"},
    "AWS::ECS::Service": {
        "CapacityProviderStrategy": "tasks run on this machine",
        "LoadBalancers": NO_LOAD_BALANCER,
        "NetworkConfiguration": "tasks share this machine's network",
        "DeploymentConfiguration": "tasks are replaced at once",
        "PropagateTags": "tasks have no tags",
    },
    "AWS::ECS::TaskDefinition": {
        "Cpu": "not limited",
        "Memory": "not limited",
        "Volumes": "tasks use this machine's disk",
        "ContainerDefinitions.LinuxParameters": "tasks run as the current user",
        "ContainerDefinitions.ReadonlyRootFilesystem": "tasks run as the current user",
        "ContainerDefinitions.User": "tasks run as the current user",
    },
    "AWS::ElasticLoadBalancingV2::Listener": {"": NO_LOAD_BALANCER},
    "AWS::ElasticLoadBalancingV2::LoadBalancer": {"": NO_LOAD_BALANCER},
    "AWS::ElasticLoadBalancingV2::TargetGroup": {"": NO_LOAD_BALANCER},
    "AWS::Events::Rule": {
        "ScheduleExpression": "schedules start nothing: invoke the function",
        "Targets.RetryPolicy": "events are retried for two minutes at most",
    },
    "AWS::IAM::Role": {
        "AssumeRolePolicyDocument": "stored, but not evaluated",
        "ManagedPolicyArns": "not evaluated: AWS itself writes logs and traces",
        "PermissionsBoundary": "stored, but not evaluated",
    },
    "AWS::KMS::Key": {"": "stored, but nothing is encrypted with it"},
    "AWS::Lambda::Function": {
        "MemorySize": "not limited",
        "Architectures": "functions run on this machine's architecture",
        "TracingConfig": "nothing is traced",
        "VpcConfig": "functions share this machine's network",
        "ReservedConcurrentExecutions": "not limited",
        "EphemeralStorage": "not limited",
    },
    "AWS::Lambda::EventInvokeConfig": {"": "stored, but asynchronous calls are not retried"},
    "AWS::Logs::LogGroup": {"RetentionInDays": "stored, but log events are never deleted", "KmsKeyId": "not encrypted"},
    "AWS::Logs::QueryDefinition": {"": "saved queries are not stored"},
    "AWS::S3::Bucket": {
        "BucketEncryption": "stored, but objects are not encrypted",
        "CorsConfiguration": "all origins are allowed",
        "LifecycleConfiguration": "stored, but objects never expire or change their storage class",
        "LoggingConfiguration": "requests are not logged",
        "OwnershipControls": "objects have no owners",
    },
    "AWS::S3::BucketPolicy": {"": "moto ignores conditions, so a TLS-only Deny would reject every call"},
    "AWS::SageMaker::EndpointConfig": {
        "ProductionVariants.InstanceType": "one container runs on this machine",
        "AsyncInferenceConfig.OutputConfig.NotificationConfig": "no notification is sent",
    },
    "AWS::SageMaker::Model": {
        "PrimaryContainer.ModelDataUrl": "model archives are not loaded",
        "VpcConfig": "the endpoint's container shares this machine's network",
    },
    "AWS::SecretsManager::Secret": {"KmsKeyId": "the secret is not encrypted"},
    "AWS::SNS::Topic": {"KmsMasterKeyId": "messages are not encrypted"},
    "AWS::SQS::Queue": {
        "KmsMasterKeyId": "messages are not encrypted",
        "SqsManagedSseEnabled": "messages are not encrypted",
    },
    "AWS::SNS::TopicPolicy": {"": "not evaluated"},
    "AWS::SQS::QueuePolicy": {"": "stored, but not evaluated"},
    "AWS::StepFunctions::StateMachineAlias": {
        "DeploymentPreference.Percentage": DEPLOYED_AT_ONCE,
        "DeploymentPreference.Alarms": DEPLOYED_AT_ONCE,
    },
    "AWS::StepFunctions::StateMachine": {
        "LoggingConfiguration": "stored, but nothing is logged. Read the execution history.",
        "TracingConfiguration": "stored, but nothing is traced",
    },
}


class _Resource:
    """A resource of a type that moto does not support.

    Args:
        name: value of a Ref.
        attributes: values of GetAtt by attribute; others get a placeholder.
    """

    def __init__(self, name: str, attributes: Mapping[str, str] | None = None) -> None:
        self.physical_resource_id = name
        self._attributes = attributes or {}
        self._delete: Callable[[], object] = lambda: None

    def get_cfn_attribute(self, attribute: str) -> str:
        return self._attributes.get(attribute, f"{self.physical_resource_id}.{attribute}")

    def is_created(self) -> bool:
        return True

    def delete_with(self, delete: Callable[[], object]) -> None:
        """Set what deletes the resource."""
        self._delete = delete

    def delete(self, *_args: Any) -> None:
        self._delete()


def _api(client: Any, name: str, properties: dict[str, Any]) -> _Resource:
    api_id, url = apigateway.serve(properties["Body"])
    return _Resource(api_id, {"ApiEndpoint": url, "ApiId": api_id})


def _stage(client: Any, _name: str, properties: dict[str, Any]) -> _Resource:
    kept = ("ApiId", "StageName", "AutoDeploy", "AccessLogSettings", "DefaultRouteSettings")
    client.create_stage(**{key: properties[key] for key in kept if key in properties})
    return _Resource(properties["StageName"])


def _secret(client: Any, name: str, properties: dict[str, Any]) -> _Resource:
    wanted = dict(properties.get("GenerateSecretString", {}))
    template, key = wanted.pop("SecretStringTemplate", None), wanted.pop("GenerateStringKey", None)
    text = properties.get("SecretString") or client.get_random_password(**wanted)["RandomPassword"]
    if template:
        text = json.dumps({**json.loads(template), key: text})
    return _Resource(client.create_secret(Name=properties.get("Name", name), SecretString=text)["ARN"])


def _delete_secret(client: Any, arn: str, _properties: dict[str, Any]) -> None:
    client.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)


def _alarm(client: Any, name: str, properties: dict[str, Any]) -> _Resource:
    name = properties.get("AlarmName", name)
    alarm = {**properties, "AlarmName": name}
    if "Threshold" in alarm:
        alarm["Threshold"] = float(alarm["Threshold"])  # a parameter's value is a text
    client.put_metric_alarm(**alarm)
    [made] = client.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return _Resource(name, {"Arn": made["AlarmArn"]})


def _composite_alarm(client: Any, name: str, properties: dict[str, Any]) -> _Resource:
    name = properties.get("AlarmName", name)
    client.put_composite_alarm(**{**properties, "AlarmName": name})
    [made] = client.describe_alarms(AlarmNames=[name], AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]
    return _Resource(name, {"Arn": made["AlarmArn"]})


def _delete_alarm(client: Any, name: str, _properties: dict[str, Any]) -> None:
    client.delete_alarms(AlarmNames=[name])


def _queue_policy(client: Any, _name: str, properties: dict[str, Any]) -> None:
    for url in properties["Queues"]:
        client.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(properties["PolicyDocument"])})


def _metric_filter(client: Any, name: str, properties: dict[str, Any]) -> None:
    metrics = [{key[0].lower() + key[1:]: item[key] for key in item} for item in properties["MetricTransformations"]]
    for metric in metrics:
        if "dimensions" in metric:
            metric["dimensions"] = {one["Key"]: one["Value"] for one in metric["dimensions"]}
    client.put_metric_filter(
        logGroupName=properties["LogGroupName"],
        filterName=properties.get("FilterName", name),
        filterPattern=properties["FilterPattern"],
        metricTransformations=metrics,
    )


def _delete_metric_filter(client: Any, name: str, properties: dict[str, Any]) -> None:
    client.delete_metric_filter(logGroupName=properties["LogGroupName"], filterName=properties.get("FilterName", name))


def _event_invoke_config(client: Any, _name: str, properties: dict[str, Any]) -> None:
    kept = ("FunctionName", "MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
    client.put_function_event_invoke_config(**{key: properties[key] for key in kept if key in properties})


def _subscription(client: Any, _name: str, properties: dict[str, Any]) -> _Resource:
    kept = {key: properties[key] for key in ("TopicArn", "Protocol", "Endpoint")}
    return _Resource(client.subscribe(**kept)["SubscriptionArn"])


def _function_alias(_client: Any, _name: str, properties: dict[str, Any]) -> _Resource:
    arn = versions.point_function_alias(properties["FunctionName"], properties["Name"], properties["FunctionVersion"])
    return _Resource(arn, {"AliasArn": arn})


def _machine_version(_client: Any, _name: str, properties: dict[str, Any]) -> _Resource:
    arn = versions.publish_machine(properties["StateMachineArn"])
    return _Resource(arn, {"Arn": arn})


def _machine_alias(_client: Any, _name: str, properties: dict[str, Any]) -> _Resource:
    arn = versions.point_machine_alias(properties["Name"], properties["DeploymentPreference"]["StateMachineVersionArn"])
    return _Resource(arn, {"Arn": arn})


def _configuration_version(_client: Any, _name: str, properties: dict[str, Any]) -> _Resource:
    published = running().published
    profile = properties["ConfigurationProfileId"]
    published[profile] += 1
    return _Resource(f"{profile}-{published[profile]}", {"VersionNumber": str(published[profile])})


Make = Callable[[Any, str, dict[str, Any]], _Resource | None]
Delete = Callable[[Any, str, dict[str, Any]], object]


class _Type(NamedTuple):
    """How resources of a type are made.

    Attributes:
        service: service of the client; empty if none is needed.
        make: makes a resource with a name; a second call with the name updates it.
        delete: deletes the resource with a name and properties; None if nothing is to do.
        can_update: whether ``make`` updates.
    """

    service: str
    make: Make
    delete: Delete | None = None
    can_update: bool = True


ADDED_TYPES: dict[str, _Type] = {
    "AWS::ApiGatewayV2::Api": _Type("apigatewayv2", _api, lambda _client, name, _: apigateway.close(name), False),
    "AWS::ApiGatewayV2::Stage": _Type("apigatewayv2", _stage),
    "AWS::AppConfig::HostedConfigurationVersion": _Type("", _configuration_version, can_update=False),
    "AWS::CloudWatch::Alarm": _Type("cloudwatch", _alarm, _delete_alarm),
    "AWS::CloudWatch::CompositeAlarm": _Type("cloudwatch", _composite_alarm, _delete_alarm),
    "AWS::Lambda::Alias": _Type("", _function_alias),  # deleted with its function
    "AWS::Lambda::EventInvokeConfig": _Type("lambda", _event_invoke_config),  # deleted with its function
    "AWS::Logs::MetricFilter": _Type("logs", _metric_filter, _delete_metric_filter),
    "AWS::SecretsManager::Secret": _Type("secretsmanager", _secret, _delete_secret, can_update=False),
    "AWS::SNS::Subscription": _Type(
        "sns", _subscription, lambda client, arn, _: client.unsubscribe(SubscriptionArn=arn)
    ),
    "AWS::SQS::QueuePolicy": _Type("sqs", _queue_policy),  # deleted with its queue
    "AWS::StepFunctions::StateMachineAlias": _Type(
        "", _machine_alias, lambda _client, arn, _: versions.delete_machine_alias(arn)
    ),
    "AWS::StepFunctions::StateMachineVersion": _Type("", _machine_version, can_update=False),
}

# moto creates these only with the subnets, certificates and groups that they refer to, which exist on AWS alone.
PLACEHOLDERS = (
    "AWS::ElasticLoadBalancingV2::Listener",
    "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "AWS::ElasticLoadBalancingV2::TargetGroup",
)


def _add_model(resource_type: str) -> None:
    found = ADDED_TYPES.get(resource_type)

    def make(name: str, properties: dict[str, Any]) -> _Resource:
        if found is None:
            return _Resource(name)
        client = running().client(found.service) if found.service else None
        made = found.make(client, name, properties) or _Resource(name)
        if found.delete:
            made.delete_with(partial(found.delete, client, made.physical_resource_id, properties))
        return made

    def create(_cls: Any, name: str, resource: Any, *_args: Any, **_kwargs: Any) -> _Resource:
        return make(name, resource["Properties"])

    def update(
        _cls: Any, /, original_resource: Any, new_resource_name: str, cloudformation_json: Any, **_kwargs: Any
    ) -> _Resource:
        return make(new_resource_name, cloudformation_json["Properties"])

    model = {
        "cloudformation_type": staticmethod(lambda: resource_type),
        "cloudformation_name_type": staticmethod(lambda: ""),
        "has_cfn_attr": staticmethod(lambda _attribute: True),
        "create_from_cloudformation_json": classmethod(create),
        "delete_from_cloudformation_json": classmethod(lambda *_args, **_kwargs: None),
    }
    if found is None or found.can_update:
        model["update_from_cloudformation_json"] = classmethod(update)
    _models.append(type(resource_type.replace("::", ""), (CloudFormationModel,), model))
    for cached in (parsing.get_model_list, parsing.get_model_map, parsing.get_name_type_map):
        cached.cache_clear()


_models: list[Any] = []  # moto finds models through weak references of their base class
for _type in (*ADDED_TYPES, *PLACEHOLDERS):
    _add_model(_type)


@around(parsing, "resource_class_from_type")
def support_every_type(original: Any, resource_type: str) -> Any:
    """AWS creates or rejects a resource; moto skips unsupported types, and a Ref to them is None.

    See getmoto/moto#9724.
    """
    if resource_type not in parsing.get_model_map() and resource_type.startswith("AWS::"):
        _add_model(resource_type)
    return original(resource_type)


@around(parsing, "clean_json")
def drop_missing_items(original: Any, value: Any, resources: Any) -> Any:
    """AWS removes items that are AWS::NoValue from lists; moto passes None to the resource."""
    cleaned = original(value, resources)
    return [item for item in cleaned if item is not None] if isinstance(value, list) else cleaned


@around(parsing, "parse_condition")
def compare_numbers_as_texts(original: Any, condition: Any, resources: Any, conditions: Any) -> bool:
    """AWS compares the value of a parameter of type Number as a text; to moto it differs from every text."""
    if isinstance(condition, dict) and "Fn::Equals" in condition:
        values = [parsing.clean_json(value, resources) for value in condition["Fn::Equals"]]
        condition = {"Fn::Equals": [str(value) if type(value) in (int, float) else value for value in values]}
    return bool(original(condition, resources, conditions))


@around(parsing, "parse_and_create_resource")
def record_ignored_properties(
    original: Any, logical_id: str, resource: Any, resources: Any, *args: Any, **kwargs: Any
) -> Any:
    """AWS applies every property; moto ignores some without a warning. This records those that have a value."""
    made = original(logical_id, resource, resources, *args, **kwargs)
    if made is None:  # its condition is false
        return made
    resource_type = resource["Type"]
    effects = IGNORED.get(resource_type)
    if effects is None and isinstance(made, _Resource) and resource_type not in ADDED_TYPES:
        effects = {"": "moto has no such type"}
    properties = parsing.clean_json(resource.get("Properties", {}), resources) if effects else {}
    for path, why in (effects or {}).items():
        if not path or _has(properties, path.split(".")):
            running().skipped.append((logical_id, path or resource_type, why))
    return made


def _has(properties: Any, path: list[str]) -> bool:
    if isinstance(properties, list):
        return any(_has(item, path) for item in properties)
    return path[0] in properties and (len(path) == 1 or _has(properties[path[0]], path[1:]))


def existing_resources(self: Any) -> list[Any]:
    """AWS lists the created resources; moto fails if the condition of one is false."""
    return [resource for resource in self.resource_map.values() if resource is not None]


Stack.stack_resources = property(existing_resources)


@around(FakeBucket, "create_from_cloudformation_json")
def configure_bucket(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS applies notifications, versioning, public access block and lifecycle; moto only encryption and tags."""
    bucket = original(cls, name, resource, *args, **kwargs)
    _configure_bucket(name, resource["Properties"])
    return bucket


@around(FakeBucket, "update_from_cloudformation_json")
def configure_bucket_anew(_original: Any, _cls: Any, **given: Any) -> Any:
    """AWS applies all properties; moto only encryption and tags."""
    bucket, properties = given["original_resource"], given["cloudformation_json"]["Properties"]
    _configure_bucket(bucket.name, properties)
    if not properties.get("LifecycleConfiguration"):
        running().client("s3").delete_bucket_lifecycle(Bucket=bucket.name)
    return bucket


@around(FakeBucket, "delete_from_cloudformation_json")
def keep_a_full_bucket(original: Any, cls: Any, name: str, *args: Any, **kwargs: Any) -> None:
    """AWS deletes no bucket that has objects or versions, and fails; moto says that it has deleted it."""
    versions = running().client("s3").list_object_versions(Bucket=name, MaxKeys=1)
    if versions.get("Versions") or versions.get("DeleteMarkers"):
        raise ValidationError(message="The bucket you tried to delete is not empty")
    original(cls, name, *args, **kwargs)


def _configure_bucket(name: str, properties: dict[str, Any]) -> None:
    client = running().client("s3")
    if "EventBridgeConfiguration" in properties.get("NotificationConfiguration", {}):
        client.put_bucket_notification_configuration(
            Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
    if versioning := properties.get("VersioningConfiguration"):
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioning)
    if block := properties.get("PublicAccessBlockConfiguration"):
        client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
    if rules := properties.get("LifecycleConfiguration", {}).get("Rules"):
        lifecycle = {"Rules": [_lifecycle_rule(rule) for rule in rules]}
        client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration=lifecycle)


def _lifecycle_rule(rule: dict[str, Any]) -> dict[str, Any]:
    made = {"ID": rule["Id"], "Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    if "ExpirationInDays" in rule:
        made["Expiration"] = {"Days": int(rule["ExpirationInDays"])}
    if "ExpiredObjectDeleteMarker" in rule:
        made["Expiration"] = {"ExpiredObjectDeleteMarker": rule["ExpiredObjectDeleteMarker"]}
    for same in ("AbortIncompleteMultipartUpload", "NoncurrentVersionExpiration"):
        if same in rule:
            made[same] = {key: int(days) for key, days in rule[same].items()}
    if "Transitions" in rule:
        made["Transitions"] = [
            {"StorageClass": one["StorageClass"], "Days": int(one["TransitionInDays"])} for one in rule["Transitions"]
        ]
    return made


@around(Table, "create_from_cloudformation_json")
def configure_table(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS applies time to live and point-in-time recovery; moto drops both."""
    table = original(cls, name, resource, *args, **kwargs)
    _configure_table(name, resource["Properties"])
    return table


def configure_table_anew(
    _cls: Any, /, original_resource: Any, new_resource_name: str, cloudformation_json: Any, **_kwargs: Any
) -> Any:
    """AWS updates a table in place; moto never."""
    _configure_table(new_resource_name, cloudformation_json["Properties"])
    return original_resource


Table.update_from_cloudformation_json = classmethod(configure_table_anew)


def _configure_table(name: str, properties: dict[str, Any]) -> None:
    client = running().client("dynamodb")
    if time_to_live := properties.get("TimeToLiveSpecification"):
        client.update_time_to_live(TableName=name, TimeToLiveSpecification=time_to_live)
    if recovery := properties.get("PointInTimeRecoverySpecification"):
        client.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=recovery)


def set_retention(
    _cls: Any, /, original_resource: Any, new_resource_name: str, cloudformation_json: Any, **_kwargs: Any
) -> Any:
    """AWS updates a log group in place; moto never."""
    logs, days = running().client("logs"), cloudformation_json["Properties"].get("RetentionInDays")
    if days:
        logs.put_retention_policy(logGroupName=new_resource_name, retentionInDays=int(days))
    else:
        logs.delete_retention_policy(logGroupName=new_resource_name)
    return original_resource


LogGroup.update_from_cloudformation_json = classmethod(set_retention)


@around(Queue, "update_from_cloudformation_json")
def set_all_attributes(original: Any, cls: Any, **given: Any) -> Any:
    """AWS applies all properties of a queue; moto only two."""
    queue, properties = original(cls, **given), given["cloudformation_json"]["Properties"]
    client = running().client("sqs")
    url = client.get_queue_url(QueueName=queue.name)["QueueUrl"]
    texts = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in properties.items()}
    attributes = {name: text for name, text in texts.items() if name in _QUEUE_ATTRIBUTES}
    client.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    return queue


_QUEUE_ATTRIBUTES = (
    "DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds", "RedrivePolicy",
    "VisibilityTimeout",
)  # fmt: skip
