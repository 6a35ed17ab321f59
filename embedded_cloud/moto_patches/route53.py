"""Route 53: IDs of hosted zones, and health checks from CloudFormation."""

from typing import Any

from moto.route53 import models
from moto.route53.models import HealthCheck

from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.host import running


@around(models, "create_route53_zone_id")
def begin_with_z(original: Any, **kwargs: Any) -> str:
    """IDs of hosted zones of AWS begin with Z, which the template requires; those of moto with any letter."""
    return f"Z{original(**kwargs)[1:]}"


def delete_health_check(self: Any, *_place: str) -> None:
    """AWS deletes a health check with its stack; moto cannot."""
    running().client("route53").delete_health_check(HealthCheckId=self.id)


HealthCheck.delete = delete_health_check
