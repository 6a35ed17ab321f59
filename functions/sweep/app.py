"""Sweep: find uploads that have neither a result nor a failure report, and start them.

An upload can lose its event: its rule was disabled or a dead letter expired, or the end of its execution was not
delivered to Reconcile. A run continues the pass over the uploads bucket that the last run began, or begins one.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import boto3
from botocore.config import Config as SdkConfig
from pydantic import AwareDatetime, BaseModel, Field

from functions.runtime.config import Config
from functions.runtime.handler import stage
from functions.runtime.outcomes import Outcomes
from functions.runtime.store import S3_SDK, Store
from functions.sweep.executions import Executions
from functions.sweep.progress import begin, resume
from functions.sweep.work import THREADS, Sweep

MIN_AGE_S: Final = 3600
"""Younger uploads are left alone: most are being processed. Also the age of an end that has not been reported."""


class SweepConfig(Config):
    """Buckets, state machine and function of Sweep.

    Attributes:
        uploads_bucket: bucket of the uploads.
        results_bucket: bucket of results and failure reports.
        work_bucket: bucket of the progress.
        state_machine_arn: the main state machine, or its alias.
        reconcile_function: function that reports executions which ended without outcome.
        result_days: days after which results and failure reports expire; 0 means never.
    """

    uploads_bucket: str
    results_bucket: str
    work_bucket: str
    state_machine_arn: str
    reconcile_function: str
    result_days: int


class SweepRequest(BaseModel):
    """The event of the schedule, which has none of these fields, or a request of an operator.

    Attributes:
        min_age_s: least age of the uploads to look at, seconds.
        since: begin a new pass that looks at the uploads from this time on, with time zone, and at those of the pass
            that it replaces; None continues that pass.
    """

    min_age_s: int = Field(default=MIN_AGE_S, ge=0)
    since: AwareDatetime | None = None


CONFIG = SweepConfig()
STORE = Store(boto3.client("s3", config=S3_SDK.merge(SdkConfig(max_pool_connections=THREADS))))


@stage(SweepRequest)
def handler(request: SweepRequest) -> dict[str, Any]:
    """Continue the pass, and return the window of time and the number of uploads by finding."""
    now = datetime.now(UTC).replace(microsecond=0)  # S3 dates objects in whole seconds, rounded down
    until = now - timedelta(seconds=request.min_age_s)
    sweep = Sweep(
        uploads_bucket=CONFIG.uploads_bucket,
        work_bucket=CONFIG.work_bucket,
        store=STORE,
        outcomes=Outcomes(STORE, CONFIG.results_bucket),
        executions=Executions(CONFIG.state_machine_arn, CONFIG.uploads_bucket, CONFIG.reconcile_function),
        now=now,
        result_days=CONFIG.result_days,
    )
    work = STORE, CONFIG.work_bucket
    progress = begin(*work, request.since, until) if request.since else resume(*work, until)
    complete = sweep.run(progress)
    window = {"since": progress.since.isoformat(), "until": progress.until.isoformat()}
    found = {finding: sweep.findings[finding] for finding in ("done", "started", "open", "reconciled")}
    return {"complete": complete, **window, **found}
