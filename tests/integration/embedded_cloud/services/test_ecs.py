"""ECS services run their containers as processes."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.deploy import create_stack, translate
from tests.conftest import ROOT
from tests.integration.embedded_cloud.services.testbed import client, until

pytestmark = pytest.mark.slow  # the state machine's tests run on these services


def worker_notes(cloud: EmbeddedCloud, what: str) -> set[str]:
    listed = client(cloud, "s3").list_objects_v2(Bucket=cloud.outputs["Bucket"], Prefix="worker/").get("Contents", [])
    return {item["Key"].split("/")[1] for item in listed if item["Key"].endswith(what)}


def test_there_are_no_scaling_activities(cloud: EmbeddedCloud) -> None:
    scaling = client(cloud, "application-autoscaling")
    assert scaling.describe_scaling_activities(ServiceNamespace="ecs")["ScalingActivities"] == []


def test_a_service_without_desired_count_runs_one_task(cloud: EmbeddedCloud) -> None:
    ecs, bucket = client(cloud, "ecs"), cloud.outputs["PlainBucket"]
    container = {"Name": "worker", "Image": "w", "Memory": 512, "Command": ["python", "-m", "worker"]}
    environment = [{"Name": "BUCKET", "Value": bucket}]
    task = {"Family": "single", "ContainerDefinitions": [{**container, "Environment": environment}]}
    service = {"Cluster": cloud.outputs["Cluster"], "TaskDefinition": {"Ref": "Task"}}
    template = {
        "Resources": {
            "Task": {"Type": "AWS::ECS::TaskDefinition", "Properties": task},
            "Service": {"Type": "AWS::ECS::Service", "Properties": service},
        },
        "Outputs": {"Service": {"Value": {"Fn::GetAtt": ["Service", "Name"]}}},
    }
    name = create_stack(client(cloud, "cloudformation"), "single", template, {})["Service"]
    (described,) = ecs.describe_services(cluster=cloud.outputs["Cluster"], services=[name])["services"]
    assert (described["desiredCount"], described["runningCount"]) == (1, 1)
    until(lambda: client(cloud, "s3").list_objects_v2(Bucket=bucket, Prefix="worker/").get("Contents"))
    client(cloud, "cloudformation").delete_stack(StackName="single")
    assert ecs.list_tasks(cluster=cloud.outputs["Cluster"], serviceName=name)["taskArns"] == []
    (described,) = ecs.describe_services(cluster=cloud.outputs["Cluster"], services=[name])["services"]
    assert described["status"] == "INACTIVE"


WEB_PAGE = {
    "MainStackName": "pbr",
    "ImageUri": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/page:1",
    "Domain": "cutouts.example.com",
    "CertificateArn": "arn:aws:acm:eu-west-1:123456789012:certificate/1",
    "Scheme": "internet-facing",
    "Cidrs": "10.0.0.0/8,192.168.1.0/24",
    "VpcId": "vpc-1",
    "Subnets": "subnet-1,subnet-2",
    "TaskSubnets": "",
    "DesiredCount": "2",
    "AccessLogsBucket": "access-logs",
    "OidcIssuer": "https://idp.example.com",
    "OidcAuthorizationEndpoint": "https://idp.example.com/authorize",
    "OidcTokenEndpoint": "https://idp.example.com/token",
    "OidcUserInfoEndpoint": "https://idp.example.com/user",
    "OidcClientId": "page",
    "OidcClientSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:page-1",
    "UploadsBucket": "uploads",
    "ResultsBucket": "results",
    "WorkBucket": "work",
    "ReviewsTable": "reviews",
    "StateMachineArn": "arn:aws:states:eu-west-1:123456789012:stateMachine:pbr",
    "QueueArns": "arn:aws:sqs:eu-west-1:123456789012:jobs",
    "UrlSchemes": "https",
    "LogRetentionDays": "30",
    "KmsKeyArn": "",
    "PermissionsBoundaryArn": "",
}


def test_a_service_behind_a_load_balancer_is_created_but_does_not_run(cloud: EmbeddedCloud) -> None:
    template = translate(ROOT / "infrastructure/web.yaml", WEB_PAGE, cloud.region)
    create_stack(client(cloud, "cloudformation"), "web", template, WEB_PAGE)
    ecs = client(cloud, "ecs")
    [cluster] = [arn for arn in ecs.list_clusters()["clusterArns"] if "web-WebCluster" in arn]
    [service] = ecs.describe_services(cluster=cluster, services=ecs.list_services(cluster=cluster)["serviceArns"])[
        "services"
    ]
    assert (service["desiredCount"], service["runningCount"]) == (2, 0)
    assert [one["containerPort"] for one in service["loadBalancers"]] == [8501]
    ecs.update_service(cluster=cluster, service=service["serviceName"], desiredCount=1)
    assert ecs.list_tasks(cluster=cluster)["taskArns"] == []
    ignored = {(logical_id, what) for logical_id, what, _ in cloud.skipped}
    assert ("WebService", "LoadBalancers") in ignored
    assert ("WebLoadBalancer", "AWS::ElasticLoadBalancingV2::LoadBalancer") in ignored


def tasks_of(cloud: EmbeddedCloud, **status: str) -> list[dict[str, Any]]:
    ecs, names = client(cloud, "ecs"), {"cluster": cloud.outputs["Cluster"]}
    arns = ecs.list_tasks(**names, serviceName=cloud.outputs["Service"], **status)["taskArns"]
    return ecs.describe_tasks(**names, tasks=arns)["tasks"] if arns else []


def test_a_stopped_task_drains_while_the_service_starts_another(cloud: EmbeddedCloud) -> None:
    ecs, names = client(cloud, "ecs"), {"cluster": cloud.outputs["Cluster"]}
    [former] = tasks_of(cloud)
    assert (former["lastStatus"], former["desiredStatus"]) == ("RUNNING", "RUNNING")
    assert former["group"] == f"service:{cloud.outputs['Service']}"
    (process,) = until(lambda: worker_notes(cloud, "started"))

    stopped = ecs.stop_task(**names, task=former["taskArn"], reason="interrupted")["task"]
    assert (stopped["taskArn"], stopped["desiredStatus"]) == (former["taskArn"], "STOPPED")
    [following] = tasks_of(cloud)
    assert following["taskArn"] != former["taskArn"]
    until(lambda: worker_notes(cloud, "drained") == {process})
    ecs.get_waiter("tasks_stopped").wait(**names, tasks=[former["taskArn"]], WaiterConfig={"Delay": 1})
    [ended] = [task for task in tasks_of(cloud, desiredStatus="STOPPED") if task["taskArn"] == former["taskArn"]]
    assert (ended["stopCode"], ended["stoppedReason"]) == ("UserInitiated", "interrupted")
    assert [container["exitCode"] for container in ended["containers"]] == [0]

    until(lambda: len(worker_notes(cloud, "started")) == 2)
    streams = client(cloud, "logs").describe_log_streams(logGroupName=cloud.outputs["Logs"])["logStreams"]
    ids = {stream["logStreamName"].rpartition("/")[2] for stream in streams}
    assert {task["taskArn"].rpartition("/")[2] for task in (former, following)} <= ids, "each task has its own log"
    s3 = client(cloud, "s3")
    for note in ("started", "drained"):
        s3.delete_object(Bucket=cloud.outputs["Bucket"], Key=f"worker/{process}/{note}")


def test_a_task_that_ignores_sigterm_is_killed_after_its_stop_timeout(cloud: EmbeddedCloud) -> None:
    ecs, names = client(cloud, "ecs"), {"cluster": cloud.outputs["Cluster"]}
    (process,) = until(lambda: worker_notes(cloud, "started"))
    [task] = tasks_of(cloud)
    os.kill(int(process), signal.SIGSTOP)  # it can handle no signal then
    ecs.stop_task(**names, task=task["taskArn"])
    until(lambda: not Path(f"/proc/{process}").exists())
    [ended] = ecs.describe_tasks(**names, tasks=[task["taskArn"]])["tasks"]
    assert [container["exitCode"] for container in ended["containers"]] == [137]
    assert 5 <= (ended["stoppedAt"] - ended["stoppingAt"]).total_seconds() < 15
    client(cloud, "s3").delete_object(Bucket=cloud.outputs["Bucket"], Key=f"worker/{process}/started")


def test_an_unknown_task_cannot_be_stopped(cloud: EmbeddedCloud) -> None:
    with pytest.raises(ClientError, match="The referenced task was not found"):
        client(cloud, "ecs").stop_task(cluster=cloud.outputs["Cluster"], task="unknown")


def test_a_service_runs_restarts_and_drains_its_container(cloud: EmbeddedCloud) -> None:
    s3, ecs = client(cloud, "s3"), client(cloud, "ecs")
    (first,) = until(lambda: worker_notes(cloud, "started"))
    s3.put_object(Bucket=cloud.outputs["Bucket"], Key="worker/die", Body=b"")
    until(lambda: len(worker_notes(cloud, "started")) == 2)
    (second,) = worker_notes(cloud, "started") - {first}
    assert not worker_notes(cloud, "drained")
    ecs.update_service(cluster=cloud.outputs["Cluster"], service=cloud.outputs["Service"], desiredCount=0)
    assert worker_notes(cloud, "drained") == {second}
    assert not Path(f"/proc/{second}").exists()
