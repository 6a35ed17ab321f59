"""EC2: associations of route tables from CloudFormation, and deletions by it."""

from collections.abc import Callable
from typing import Any

from moto.ec2.models.flow_logs import FlowLogs
from moto.ec2.models.route_tables import RouteTable
from moto.ec2.models.subnets import SubnetRouteTableAssociation
from moto.ec2.models.vpcs import VPCEndPoint

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running


@around(SubnetRouteTableAssociation, "create_from_cloudformation_json")
def associate_the_route_table(original: Any, cls: Any, name: str, resource: Any, *args: Any, **kwargs: Any) -> Any:
    """AWS associates the route table with the subnet, and returns the association's ID for a Ref; moto does neither."""
    made, properties = original(cls, name, resource, *args, **kwargs), resource["Properties"]
    made.association_id = running().client("ec2").associate_route_table(**properties)["AssociationId"]
    return made


def association_id(self: Any) -> str:
    """AWS returns the association's ID for a Ref; moto that of the route table."""
    return str(self.association_id)


def disassociate(self: Any, *_place: str) -> None:
    """AWS deletes the association; moto cannot."""
    running().client("ec2").disassociate_route_table(AssociationId=self.association_id)


SubnetRouteTableAssociation.physical_resource_id = property(association_id)
SubnetRouteTableAssociation.delete = disassociate


def delete_with(operation: str, argument: str) -> Callable[..., None]:
    """AWS deletes flow logs, route tables and endpoints with their stack; moto cannot."""

    def delete(self: Any, *_place: str) -> None:
        name = self.physical_resource_id
        getattr(running().client("ec2"), operation)(**{argument: [name] if argument.endswith("s") else name})

    return delete


FlowLogs.delete = delete_with("delete_flow_logs", "FlowLogIds")
RouteTable.delete = delete_with("delete_route_table", "RouteTableId")
VPCEndPoint.delete = delete_with("delete_vpc_endpoints", "VpcEndpointIds")
