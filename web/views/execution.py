"""One execution: why it failed, what each stage saw and did, and what it cost."""

import html
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import streamlit as st

from client import redrive
from client.errors import ExecutionNotFoundError, client_error
from client.executions import details, graph, search
from client.executions.details import Details
from client.executions.pictures import MASKS_KEPT_DAYS, StagePicture
from client.executions.steps import Step
from client.redrive import Retry
from core.errors import BackgroundRemoverError, UnsupportedFormatError
from core.image.sniff import sniff
from functions.contracts.prices import AS_OF
from functions.contracts.result import reasons_text
from web import errors, pictures, session
from web.pictures import Picture
from web.times import local_time
from web.users import User

_REFRESH_S: Final = 1.5
_LAG_S: Final = 30.0  # DescribeExecution may lag behind a start or a redrive
_HEAD_BYTES: Final = 4096

_BADGES: Final[dict[str, tuple[str, str, Any]]] = {
    "RUNNING": ("Running", ":material/progress_activity:", "blue"),
    "SUCCEEDED": ("Succeeded", ":material/check_circle:", "green"),
    "FAILED": ("Failed", ":material/error:", "red"),
    "TIMED_OUT": ("Timed out", ":material/timer_off:", "red"),
    "ABORTED": ("Aborted", ":material/block:", "orange"),
}
_TITLES: Final = {"source": "Source", "mask": "Mask", "alpha": "Alpha", "result": "Result"}
_WITHOUT_WORK: Final = ("Choice",)

OF_ANOTHER_USER: Final = "Image of another user"
"""What the page shows in place of the object key and the file name of an image that another user uploaded."""

_DATA_HELP: Final = "Sent: what the state sent to the function or service, without task tokens."

_CHECKERBOARD: Final = "repeating-conic-gradient(#bfc5c3 0% 25%, #f4f6f5 0% 50%) 0 0 / 20px 20px"
_STYLE: Final = f"""<style>
.stages {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(200px, 100%), 1fr)); gap: 1rem }}
.stages figure {{ margin: 0 }}
.stages .frame {{ display: flex; align-items: center; justify-content: center; height: 210px; border-radius: .5rem;
  overflow: hidden; border: 1px solid rgba(128, 140, 135, .45) }}
.stages .frame.clear {{ background: {_CHECKERBOARD} }}
.stages .frame.none {{ padding: 1rem; text-align: center; font-size: .875rem }}
.stages img {{ max-width: 100%; max-height: 210px; object-fit: contain; display: block }}
.stages figcaption {{ font-size: .875rem; padding-top: .35rem; line-height: 1.4 }}
.stages figcaption b {{ font-weight: 600 }}
</style>"""


def show(name: str, link: Callable[..., None]) -> None:
    """Show an execution, and update it while it is running.

    Args:
        name: its name or ARN.
        link: shows a link to the page Executions, see :func:`web.views.executions.show`.
    """
    link("All executions", {"page": st.query_params.get("page", "1")}, icon=":material/arrow_back:")
    try:
        described = _described(name)
    except ExecutionNotFoundError as error:
        st.title("Execution")
        errors.show(error)
        return
    running = described is None or _is_running(described)
    st.fragment(_body, run_every=_REFRESH_S if running else None)(name, link, running)


def _described(name: str) -> Any:
    """Return the answer of DescribeExecution; None if the execution has just been started."""
    try:
        return details.describe(session.stack(), name)
    except ExecutionNotFoundError:
        if time.time() < st.session_state.get(f"started-{name}", 0.0):
            return None
        raise


def _is_running(described: Any) -> bool:
    """Return whether an execution is running, or is about to continue after a redrive."""
    redrives, until = st.session_state.get(f"redriven-{described['name']}", (0, 0.0))
    return bool(
        described["status"] == "RUNNING" or (described.get("redriveCount", 0) < redrives and time.time() < until)
    )


def _body(name: str, link: Callable[..., None], was_running: bool) -> None:
    described = _described(name)
    if described is None:
        st.title("Executions")
        st.info("The execution is starting.", icon=":material/progress_activity:")
        return
    if was_running and not _is_running(described):
        st.rerun()  # ends the updates
    found = _so_far(described) if was_running else _ended(_version(described), described)
    user = session.user()
    if not user.may_see(found.summary.source_key):
        found = details.conceal(found)
    _heading(found)
    _answer(found, link)
    _actions(found)
    _stages(found, user)
    _path(found)
    _cost(found)
    _events(found)


def _so_far(described: Any) -> Details:
    """Return the details of an execution that is running."""
    before = st.session_state.get("followed")
    if before and before.summary.arn != described["executionArn"]:
        before = None
    found = st.session_state["followed"] = _update(described["executionArn"], described, before)
    return found


@st.cache_resource(max_entries=32, ttl=_REFRESH_S, show_spinner=False)
def _update(arn: str, _described: Any, _before: Details | None) -> Details:
    """Return the details of an execution. All who watch it at the same time share the answers."""
    del arn
    return details.load(session.stack(), _described, _before)


def _version(described: Any) -> tuple[str, ...]:
    """Return what changes when an execution changes."""
    names = ("executionArn", "status", "stopDate", "redriveCount")
    return tuple(str(described.get(name)) for name in names)


@st.cache_resource(max_entries=32, ttl=600, show_spinner=False)
def _ended(version: tuple[str, ...], _described: Any) -> Details:
    """Return the details of an execution that has ended."""
    del version
    return details.load(session.stack(), _described)


def _heading(found: Details) -> None:
    summary = found.summary
    key = summary.source_key or summary.name
    st.title(OF_ANOTHER_USER if found.concealed else errors.literal(key.rpartition("/")[2] or key))
    label, icon, color = _BADGES[summary.status]
    took = "" if summary.seconds is None else f"in {graph.duration(summary.seconds)}"
    redriven = f"redriven {found.redrives} x" if found.redrives else ""
    facts = (f"started {local_time(summary.started_at, whole=True)}", took, redriven)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(label, icon=icon, color=color)
        st.markdown(" · ".join(part for part in facts if part), width="content")
    image = f"Image {errors.literal(key)}, execution" if summary.source_key else "Execution"
    st.markdown(f":small[{image} {errors.literal(summary.name)}]")


def _answer(found: Details, link: Callable[..., None]) -> None:
    """Show first what the reader came for: the error, or what the result is like."""
    summary, failure = found.summary, found.failure
    if failure:
        errors.box(failure.error, failure.message, failure.field, failure.value, failure.remedy)
        if failure.stage:
            st.markdown(f"Failed in the state **{errors.literal(failure.stage)}**.")
    elif found.current:
        step = found.current
        retries = f", attempt {len(step.attempts)}" if len(step.attempts) > 1 else ""
        st.info(f"**{step.name}** is running{retries}.", icon=":material/progress_activity:")
    for one in found.degradations:
        text = f"**{errors.literal(one.stage)} failed.** {one.consequence} {errors.literal(one.message)}."
        st.warning(f"{text} {errors.literal(one.remedy)}", icon=":material/warning:")
    if found.output:
        _outcome(found.output)
    if found.computed_by:
        name = found.computed_by.rpartition(":")[2]
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown("The result was copied from the cache.", width="content")
            link("Execution that computed it", {"execution": name}, icon=":material/arrow_forward:")
    if not (summary.source_key or failure or found.concealed):
        st.markdown("The input has no image.")


def _outcome(output: Any) -> None:
    quality, image, model = output["quality"], output["image"], output["model"]
    facts = (
        f"{image['format']}, {image['width']:,} x {image['height']:,} px, {image['bytes'] / 1000:,.0f} kB",
        f"{model['name']} on {model['host']}",
        f"quality {quality['score']:.2f}",
    )
    st.markdown(" · ".join(facts))
    if quality["review"]:
        reasons = reasons_text(quality["reasons"])
        st.warning(f"**Look at this result before you use it:** {reasons}.", icon=":material/rate_review:")
    if second := output.get("escalation"):
        scores = ", ".join(f"{name} {score:.2f}" for name, score in second["score"].items())
        st.markdown(f"Second attempt with {second['model']}: the {second['kept']} one was kept ({scores}).")
    for warning in output["warnings"]:
        st.warning(errors.literal(warning), icon=":material/warning:")


def _actions(found: Details) -> None:
    stack, failure = session.stack(), found.failure
    with st.container(horizontal=True):
        if failure and st.button("Redrive", icon=":material/replay:"):
            _confirm(found.summary.arn)
        if url := search.console_url(stack, found.summary.arn):
            st.link_button("AWS console", url, icon=":material/open_in_new:")
        if failure and failure.key:
            with st.popover("Failure report", icon=":material/description:"):
                _report(found.summary.arn, failure.key)


def _report(arn: str, key: str) -> None:
    report = session.stack().document(key)
    if report and report.get("execution", {}).get("id") == arn:
        st.markdown(f":small[{errors.literal(key)}]")
        st.json(report)
    else:
        st.markdown("A later execution of the same image has replaced or deleted the report.")


@st.dialog("Redrive this execution?", icon=":material/replay:")
def _confirm(arn: str) -> None:
    """Show what a retry would do, and do it."""
    stack = session.stack()
    [retry] = redrive.plan(stack, [arn], named=True)
    if retry.action == "skipped":
        st.markdown(f"It cannot be retried: {errors.literal(retry.reason)}.")
        return
    new = (retry.retry_arn or "").rpartition(":")[2]
    if retry.action == "redriven":
        st.markdown("It continues at the state that failed, with the output of the earlier states.")
    else:
        st.markdown(f"A new execution with the same input starts, `{new}`: {errors.literal(retry.reason)}.")
    if st.button("Redrive", icon=":material/replay:", key="confirm-redrive"):
        [done] = redrive.execute(stack, [retry])
        if done.retry_arn is None:
            st.error(f"It was not retried: {errors.literal(done.reason)}.", icon=":material/error:")
            return
        _follow(done, new)
        st.rerun()


def _follow(retry: Retry, name: str) -> None:
    """Show the execution that does the work, which DescribeExecution may not know yet."""
    until = time.time() + _LAG_S
    st.session_state[f"redriven-{name}"] = (retry.redrives, until)
    st.session_state[f"started-{name}"] = until
    st.query_params["execution"] = name


def _stages(found: Details, user: User) -> None:
    st.subheader("Pictures")
    if found.concealed:
        st.info(
            "Another user uploaded this image on the web page. Only that user can see its name, pictures and data.",
            icon=":material/lock:",
        )
        return
    if not found.pictures:
        st.markdown("The input has no image.")
        return
    failed_early = bool(found.failure) and len(found.pictures) == 1
    masks = _masks(found)
    figures = []
    for one in found.pictures:
        figures.append(_figure(one, found, user, check=failed_early))
        if one in masks:
            figures.append(_difference(masks[one], one, user))
    st.html(f'{_STYLE}<div class="stages">{"".join(figures)}</div>')


def _figure(one: StagePicture, found: Details, user: User, *, check: bool) -> str:
    picture = Picture(one.bucket, one.key, one.version_id)
    title = _TITLES[one.kind] + (f" of the {one.attempt} attempt" if one.attempt else "")
    caption = _caption(title, one.size, one.facts)
    if one in found.missing:
        temporary = one.kind in ("mask", "alpha")
        reason = f"It was deleted after {MASKS_KEPT_DAYS} days." if temporary else "It was deleted or has expired."
        return _without_picture(f"{title}: no longer there. {reason}", caption)
    if check and (problem := _problem(picture)):
        return _without_picture(problem, caption)
    clear = " clear" if one.kind == "result" else ""
    return _with_picture(pictures.address(picture, user), f"{title} of {one.key}", caption, clear)


def _difference(mask: StagePicture, alpha: StagePicture, user: User) -> str:
    source = pictures.address(Picture(alpha.bucket, alpha.key), user, "difference", mask_key=mask.key)
    attempt = f" of the {alpha.attempt} attempt" if alpha.attempt else ""
    caption = _caption(f"Difference{attempt}", "", "orange: removed by refinement; blue: added")
    return _with_picture(source, f"What refinement changed between the mask and the alpha{attempt}", caption, "")


def _masks(found: Details) -> dict[StagePicture, StagePicture]:
    """Return the mask of each alpha, if both exist."""
    there = [one for one in found.pictures if one not in found.missing]
    masks = {one.attempt: one for one in there if one.kind == "mask"}
    return {one: masks[one.attempt] for one in there if one.kind == "alpha" and one.attempt in masks}


def _problem(picture: Picture) -> str | None:
    """Return why browsers cannot show an upload that was rejected, or None."""
    part = {"Range": f"bytes=0-{_HEAD_BYTES - 1}"}
    version = {"VersionId": picture.version_id} if picture.version_id else {}
    try:
        answer = session.stack().s3.get_object(Bucket=picture.bucket, Key=picture.key, **part, **version)  # type: ignore[arg-type]
        found = sniff(answer["Body"].read())
    except UnsupportedFormatError as error:
        return f"{error.message}."
    except (BackgroundRemoverError, client_error()):
        return "The file is empty, or cannot be read."
    return None if found in pictures.SHOWN else f"Browsers do not show {found} files that are damaged."


def _caption(title: str, size: str, facts: str) -> str:
    more = "<br>".join(html.escape(part) for part in (size, facts) if part)
    return f"<figcaption><b>{html.escape(title)}</b><br>{more}</figcaption>"


def _with_picture(source: str, alt: str, caption: str, kind: str) -> str:
    text = html.escape(alt, quote=True)
    image = f'<img src="{source}" alt="{text}" loading="lazy">'
    return f'<figure><a class="frame{kind}" href="{source}" target="_blank">{image}</a>{caption}</figure>'


def _without_picture(reason: str, caption: str) -> str:
    return f'<figure><div class="frame none">{html.escape(reason)}</div>{caption}</figure>'


@st.fragment
def _path(found: Details) -> None:
    """Show the graph, and what each step was given and returned."""
    st.subheader("Path")
    every = st.toggle(
        "All states", help="Also the states that the execution did not enter, in gray.", key="every-state"
    )
    blamed = found.failure.stage if found.failure else None
    drawing = graph.dot(found.definition, found.steps, every_state=every, blamed=blamed)
    alt = graph.summary(found.steps, blamed)
    steps = [step for step in found.steps if step.kind not in _WITHOUT_WORK]
    if every:
        st.graphviz_chart(drawing, alt=alt, width="stretch")
        _step(found, steps)
        return
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.graphviz_chart(drawing, alt=alt)
    with right:
        _step(found, steps)


def _step(found: Details, steps: Sequence[Step]) -> None:
    if not steps:
        st.markdown("No state has started yet.")
        return
    blamed = found.failure.stage if found.failure else None
    if found.concealed:
        for step in steps:
            for text in step.errors:
                st.markdown(f"**{errors.literal(step.name)}**: {errors.literal(text)}")
        return
    index = next((number for number, step in enumerate(steps) if step.name == blamed), len(steps) - 1)
    step = st.selectbox("Step", steps, index=index, format_func=_step_label, key=f"step-{found.summary.name}")
    for text in step.errors:
        st.error(errors.literal(text), icon=":material/error:")
    parts = {"Input": step.input, "Sent": step.parameters, "Output": step.output}
    part = st.segmented_control("Data", list(parts), required=True, default="Input", key="step-data", help=_DATA_HELP)
    if parts[part] is None:
        st.markdown("No data.")
    else:
        st.json(parts[part], expanded=1)


def _step_label(step: Step) -> str:
    text = graph.Visits([step]).text
    return f"{step.name}: {text}" if text else step.name


def _cost(found: Details) -> None:
    cost = found.cost
    st.subheader("Cost")
    st.markdown(f"**${cost.total:.5f}**, estimated at list prices of {AS_OF}, {cost.region}")
    usage = cost.usage
    rows = (
        ("Step Functions", f"{usage.transitions:,.0f} transitions", cost.orchestration),
        ("Lambda", f"{usage.lambda_requests:,.0f} calls, {usage.lambda_gb_s:,.2f} GB-s", cost.compute),
        (
            "S3 and DynamoDB",
            f"{usage.s3_writes + usage.s3_reads:,.0f} and {usage.dynamodb_writes + usage.dynamodb_reads:,.0f} requests",
            cost.requests,
        ),
    )
    st.markdown(
        "\n".join(
            ["| Service | Usage | US dollars |", "|---|---|---:|"]
            + [f"| {name} | {text} | {usd:.6f} |" for name, text, usd in rows]
        )
    )
    st.markdown(f":small[Without {', '.join(cost.left_out)}.]")


def _events(found: Details) -> None:
    with st.expander(f"Events ({len(found.events):,})", icon=":material/list:"):
        table = [
            {"id": row.id, "ms": row.ms, "event": row.type, "state": row.state, "detail": row.detail}
            for row in found.events
        ]
        st.dataframe(
            table,
            hide_index=True,
            alt="Events of the execution",
            column_config={"ms": st.column_config.NumberColumn("+ ms", help="Milliseconds since the start.")},
        )
        st.download_button(
            "Save as JSON",
            data=lambda: json.dumps([vars(row) for row in found.events], indent=2),
            file_name=f"{found.summary.name}.json",
            mime="application/json",
            icon=":material/download:",
        )
