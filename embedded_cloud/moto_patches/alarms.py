"""CloudWatch alarms: moto stores metric alarms, but never evaluates them, and has no composite alarms."""

import functools
import json
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session
from moto.cloudwatch.exceptions import ValidationError
from moto.cloudwatch.models import Alarm, CloudWatchBackend, MetricDataQuery, cloudwatch_backends
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionResult
from moto.core.utils import utcnow

from embedded_cloud import metric_math
from embedded_cloud.alarm_rules import (
    EXTRA_PERIODS,
    AlarmRuleError,
    State,
    alarms_in,
    breaches,
    compile_rule,
    decide,
)
from embedded_cloud.metric_math import MetricMath, MetricMathError, Window
from embedded_cloud.moto_patches.around import around
from embedded_cloud.moto_patches.cloudwatch import StoredMetrics
from embedded_cloud.moto_patches.host import running

MISSING = "missing"
_ACTIONS = {"OK": "ok_actions", "ALARM": "alarm_actions", "INSUFFICIENT_DATA": "insufficient_data_actions"}
_MINUTE_S = 60
_HIGH_RESOLUTION_S = 10
_SYMBOLS = {
    "GreaterThanThreshold": "greater than",
    "GreaterThanOrEqualToThreshold": "greater than or equal to",
    "LessThanThreshold": "less than",
    "LessThanOrEqualToThreshold": "less than or equal to",
    "GreaterThanUpperThreshold": "greater than the upper threshold of",
    "LessThanLowerThreshold": "less than the lower threshold of",
    "LessThanLowerOrGreaterThanUpperThreshold": "outside of",
}
_evaluating = threading.Lock()


@around(CloudWatchBackend, "put_metric_alarm")
def start_without_data(original: Any, self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """AWS creates an alarm as INSUFFICIENT_DATA, and a change keeps its state; moto sets OK in both cases.

    AWS rejects invalid expressions and rules; moto accepts them.
    """
    _check_metrics(kwargs.get("metric_data_queries") or [], kwargs.get("threshold_metric_id"))
    if kwargs.get("rule") is not None:
        _check_rule(self, kwargs["rule"])
    before = self.alarms.get(name)
    alarm = original(self, name, *args, **kwargs)
    alarm.state_value = before.state_value if before else str(State.INSUFFICIENT_DATA)
    return alarm


def _check_metrics(queries: Sequence[MetricDataQuery], threshold_id: str | None) -> None:
    called = set()
    for query in queries:
        if query.expression:
            try:
                called |= metric_math.functions(metric_math.parse(query.expression))
            except MetricMathError as error:
                raise ValidationError(f"Error in expression '{query.id}': {error}") from None
    if "SEARCH" in called:
        raise ValidationError("SEARCH is not supported on Metric Alarms.")
    returned = [query.id for query in queries if query.return_data is not False and query.id != threshold_id]
    if queries and len(returned) != 1:
        raise ValidationError("Exactly one element of the metrics list should return data.")


def _check_rule(backend: Any, rule: str) -> None:
    try:
        missing = sorted(set(alarms_in(rule)) - backend.alarms.keys())
    except AlarmRuleError as error:
        raise ValidationError(str(error)) from None
    if missing:
        listed = ", ".join(missing)
        message = f"Could not save the composite alarm as alarms [{listed}] in the alarm rule do not exist"
        raise ValidationError(message)


def put_composite_alarm(self: Any) -> Any:
    """AWS has composite alarms; moto stores them, but does not implement the call."""
    return CloudWatchResponse.put_metric_alarm(self)


CloudWatchResponse.put_composite_alarm = put_composite_alarm


@around(CloudWatchResponse, "describe_alarms")
def list_requested_types(_original: Any, self: Any) -> ActionResult:
    """AWS lists the requested types of alarms, by default metric alarms; moto lists all.

    AWS combines the other conditions, too; moto applies the first.
    """
    types, state = self._get_param("AlarmTypes") or ["MetricAlarm"], self._get_param("StateValue")
    names, prefix = self._get_param("AlarmNames"), self._get_param("AlarmNamePrefix") or ""
    action = self._get_param("ActionPrefix") or ""
    found: dict[str, list[Any]] = {"MetricAlarms": [], "CompositeAlarms": []}
    for alarm in list(self.cloudwatch_backend.alarms.values()):
        kind = "MetricAlarm" if alarm.rule is None else "CompositeAlarm"
        named = alarm.name in names if names else alarm.name.startswith(prefix)
        acts = not action or any(one.startswith(action) for one in alarm.alarm_actions)
        if kind in types and named and acts and state in (None, alarm.state_value):
            found[f"{kind}s"].append(alarm)
    return ActionResult(found)


@around(Alarm, "update_state")
def notify_topics(original: Any, self: Any, reason: str, reason_data: str, state_value: str) -> None:
    """AWS publishes to the topics of a new state; moto only stores the state."""
    before = self.state_value
    original(self, reason, reason_data, state_value)
    if before == state_value or not self.actions_enabled:
        return
    for action in getattr(self, _ACTIONS[state_value]) or []:
        if ":sns:" in action:
            _publish(self, action, before)


def _publish(alarm: Any, topic: str, before: str) -> None:
    region = _region_name(alarm.region_name)
    try:
        running().client("sns").publish(
            TopicArn=topic,
            Subject=f'{alarm.state_value}: "{alarm.name}" in {region}'[:99],
            Message=json.dumps(_message(alarm, before, region)),
        )
    except (BotoCoreError, ClientError):  # the topic is deleted: as on AWS, the alarm changes all the same
        return


@functools.lru_cache
def _region_name(region: str) -> str:
    partitions = get_session().get_data("partitions")["partitions"]
    names = {code: found["description"] for one in partitions for code, found in one["regions"].items()}
    return str(names.get(region, region))


def _message(alarm: Any, before: str, region: str) -> dict[str, Any]:
    """Return the message that CloudWatch sends to a topic."""
    message = {
        "AlarmName": alarm.name,
        "AlarmDescription": alarm.description,
        "AWSAccountId": DEFAULT_ACCOUNT_ID,
        "AlarmConfigurationUpdatedTimestamp": _time(alarm.configuration_updated_timestamp),
        "NewStateValue": alarm.state_value,
        "NewStateReason": alarm.state_reason,
        "StateChangeTime": _time(alarm.state_updated_timestamp),
        "Region": region,
        "AlarmArn": alarm.alarm_arn,
        "OldStateValue": before,
        "OKActions": alarm.ok_actions,
        "AlarmActions": alarm.alarm_actions,
        "InsufficientDataActions": alarm.insufficient_data_actions,
    }
    if alarm.rule is None:
        return {**message, "Trigger": _trigger(alarm)}
    children = [
        {
            "Arn": child.alarm_arn,
            "State": {"Value": child.state_value, "Timestamp": _time(child.state_updated_timestamp)},
        }
        for name, child in _backend().alarms.items()
        if name in alarms_in(alarm.rule) and child.state_value == State.ALARM
    ]
    return {**message, "AlarmRule": alarm.rule, "TriggeringChildren": children}


def _trigger(alarm: Any) -> dict[str, Any]:
    common = {
        "Period": _period_s(alarm),
        "EvaluationPeriods": int(alarm.evaluation_periods),
        "DatapointsToAlarm": _to_alarm(alarm),
        "ComparisonOperator": alarm.comparison_operator,
        "Threshold": None if alarm.threshold is None else float(alarm.threshold),
        "TreatMissingData": alarm.treat_missing_data or MISSING,
        "EvaluateLowSampleCountPercentile": alarm.evaluate_low_sample_count_percentile or "",
    }
    if alarm.metric_data_queries:
        metrics = [{key: value for key, value in query.items() if value is not None} for query in _queries(alarm)]
        return {**common, "Metrics": metrics}
    extended = alarm.extended_statistic
    return {
        "MetricName": alarm.metric_name,
        "Namespace": alarm.namespace,
        "StatisticType": "ExtendedStatistic" if extended else "Statistic",
        "ExtendedStatistic" if extended else "Statistic": extended or alarm.statistic.upper(),
        "Unit": alarm.unit,
        "Dimensions": [{"value": one.value, "name": one.name} for one in alarm.dimensions],
        **common,
    }


def _time(time: datetime) -> str:
    return time.replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"


def evaluate(now: datetime) -> dict[str, str]:
    """Evaluate every alarm, and return the states by name.

    Args:
        now: end of the evaluated time. It is rounded down to a minute: a period counts once it is over.
    """
    now = now.astimezone(UTC).replace(tzinfo=None)
    with _evaluating:
        alarms = list(_backend().alarms.values())
        for alarm in alarms:
            if alarm.rule is None:
                _evaluate_metric(alarm, now)
        composite = [alarm for alarm in alarms if alarm.rule is not None]
        for _ in composite:  # one may depend on the others
            changed = [_evaluate_composite(alarm, alarms) for alarm in composite]
            if not any(changed):
                break
        return {alarm.name: str(alarm.state_value) for alarm in alarms}


def _backend() -> Any:
    return cloudwatch_backends[DEFAULT_ACCOUNT_ID][running().sdk["AWS_REGION"]]


def _evaluate_composite(alarm: Any, alarms: Sequence[Any]) -> bool:
    """Return whether the alarm has changed."""
    states = {other.name: other.state_value for other in alarms}
    state = State.ALARM if compile_rule(alarm.rule)(states) else State.OK
    if state == alarm.state_value:
        return False
    names = alarms_in(alarm.rule)
    latest = max(
        (one for one in alarms if one.name in names), key=lambda one: one.state_updated_timestamp, default=alarm
    )
    at = latest.state_updated_timestamp.strftime("%A %d %B, %Y %H:%M:%S UTC")
    alarm.update_state(f"{latest.alarm_arn} transitioned to {latest.state_value} at {at}", "{}", str(state))
    return True


def _evaluate_metric(alarm: Any, now: datetime) -> None:
    try:
        found = list(_points(alarm, now))
    except MetricMathError as error:  # e.g. a function that gets an array
        alarm.update_state(str(error), "{}", str(State.INSUFFICIENT_DATA))
        return
    periods, to_alarm, missing = int(alarm.evaluation_periods), _to_alarm(alarm), alarm.treat_missing_data or MISSING
    breaching = [None if point is None else breaches(point[1], alarm.comparison_operator, *point[2]) for point in found]
    state = decide(breaching, periods, to_alarm, missing, alarm.state_value)
    if state != alarm.state_value:
        real = [point for point in found if point is not None][-periods:]
        reason = _reason(alarm, state, real, [value for value in breaching if value is not None][-periods:])
        data = {
            "version": "1.0",
            "queryDate": _time(utcnow()),
            "startDate": _time(real[0][0]) if real else None,
            "statistic": alarm.extended_statistic or alarm.statistic,
            "period": _period_s(alarm),
            "recentDatapoints": [value for _, value, _ in real],
            "threshold": alarm.threshold,
        }
        kept = {key: value for key, value in data.items() if value is not None}
        alarm.update_state(reason, json.dumps(kept), str(state))


Point = tuple[datetime, float, tuple[float, ...]]


def _points(alarm: Any, now: datetime) -> Iterator[Point | None]:
    """Yield time, value and limits of each period, oldest first; None without a value."""
    period_s = _period_s(alarm)
    resolution_s = _MINUTE_S if period_s >= _MINUTE_S else _HIGH_RESOLUTION_S
    end = now.replace(second=now.second // resolution_s * resolution_s % _MINUTE_S, microsecond=0)
    count = int(alarm.evaluation_periods) + EXTRA_PERIODS
    window = Window(end - count * timedelta(seconds=period_s), end)
    queries = _queries(alarm)
    math = MetricMath(queries, StoredMetrics(_backend()), window)
    band_id = alarm.threshold_metric_id
    [value_id] = [query["Id"] for query in queries if query["ReturnData"] and query["Id"] != band_id]
    found = math.result(value_id)
    if len(found) != 1:
        raise MetricMathError(f"Error in expression '{value_id}': an alarm needs a single time series.")
    limits = [series.points for series in math.result(band_id)] if band_id else []
    for at in window.starts(period_s):
        value = found[0].points.get(at)
        if value is None or any(at not in points for points in limits):
            yield None
        else:
            yield at, value, tuple(points[at] for points in limits) or (float(alarm.threshold),)


def _queries(alarm: Any) -> list[dict[str, Any]]:
    """Return the queries of an alarm as GetMetricData gets them."""
    if not alarm.metric_data_queries:
        stat = alarm.extended_statistic or alarm.statistic
        return [_metric_query("m1", alarm, _period_s(alarm), stat, alarm.unit)]
    return [
        {
            **(
                _metric_query(
                    query.id,
                    query.metric_stat.metric,
                    query.metric_stat.period,
                    query.metric_stat.stat,
                    query.metric_stat.unit,
                )
                if query.metric_stat
                else {"Id": query.id, "Expression": query.expression, "Period": query.period}
            ),
            "Label": query.label,
            "ReturnData": query.return_data is not False,
        }
        for query in alarm.metric_data_queries
    ]


def _metric_query(query_id: str, metric: Any, period: Any, stat: str, unit: str | None) -> dict[str, Any]:
    dimensions = [{"Name": one.name, "Value": one.value} for one in metric.dimensions]
    named = {"Namespace": metric.namespace, "MetricName": metric.metric_name, "Dimensions": dimensions}
    return {
        "Id": query_id,
        "MetricStat": {"Metric": named, "Period": int(period), "Stat": stat, **({"Unit": unit} if unit else {})},
        "ReturnData": True,
    }


def _period_s(alarm: Any) -> int:
    """Return the period of an alarm. All metrics of an alarm have the same."""
    periods = [alarm.period]
    for query in alarm.metric_data_queries:
        periods += [query.period, query.metric_stat and query.metric_stat.period]
    return next((int(period) for period in periods if period), _MINUTE_S)


def _to_alarm(alarm: Any) -> int:
    return int(alarm.datapoints_to_alarm or alarm.evaluation_periods)


def _reason(alarm: Any, state: State, points: Sequence[Point], breaching: Sequence[bool]) -> str:
    if state == State.INSUFFICIENT_DATA:
        count = int(alarm.evaluation_periods)
        return f"Insufficient Data: {count} datapoint{'s were' if count > 1 else ' was'} unknown."
    if not points:
        count, treated = int(alarm.evaluation_periods), alarm.treat_missing_data
        many = "s were" if count > 1 else " was"
        kind = treated[0].upper() + treated[1:]
        return (
            f"Threshold Crossed: no datapoints were received for {count} period{'s' if count > 1 else ''} and "
            f"{count} missing datapoint{many} treated as [{kind}]."
        )
    wanted = [
        (point, breach) for point, breach in zip(points, breaching, strict=True) if breach == (state == State.ALARM)
    ]
    values = ", ".join(f"{value:g} ({at:%d/%m/%y %H:%M:%S})" for (at, value, _), _ in reversed(wanted))
    limits = points[-1][2]
    limit = f"the threshold ({limits[0]:g})" if len(limits) == 1 else f"the band [{limits[0]:g}, {limits[1]:g}]"
    many = "s" if len(points) > 1 else ""
    verb = f"{'were' if len(wanted) > 1 else 'was'}{'' if state == State.ALARM else ' not'}"
    return (
        f"Threshold Crossed: {len(wanted)} out of the last {len(points)} datapoint{many} [{values}] {verb} "
        f"{_SYMBOLS[alarm.comparison_operator]} {limit}."
    )
