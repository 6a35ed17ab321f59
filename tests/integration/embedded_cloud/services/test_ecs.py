"""ECS services run their containers as processes."""

from pathlib import Path

import pytest

from embedded_cloud.cloud import EmbeddedCloud
from embedded_cloud.deploy import create_stack
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
    ecs.update_service(cluster=cloud.outputs["Cluster"], service=name, desiredCount=0)


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
