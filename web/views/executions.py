"""The page Executions: a list with filters, or one execution. The address has the filters and the execution."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import streamlit as st

from client.errors import UsageError
from client.executions.graph import duration
from client.executions.search import CHUNK, DESCRIBED, FAILED, STATUSES, Descriptions, Filter, Search
from client.history import ExecutionSummary
from web import errors, session
from web.times import local_time
from web.users import User
from web.views import execution

_PAGE_SIZE: Final = 25
_FOLDER_CHARS: Final = 48
_REFRESH_S: Final = 5.0
_PAGE: Final = re.compile(r"[1-9][0-9]{0,5}")

_STATUS: Final = {"all": STATUSES, "running": ("RUNNING",), "succeeded": ("SUCCEEDED",), "failed": FAILED}
_SINCE: Final = {"1h": "last hour", "24h": "last 24 hours", "7d": "last 7 days", "90d": "last 90 days"}
_QUALITY: Final = {"any": "any", "review": "needs review", "degraded": "degraded", "cached": "from the cache"}
_HOURS: Final = {"1h": 1, "24h": 24, "7d": 24 * 7, "90d": 24 * 90}
_DEFAULTS: Final = {"status": "all", "since": "90d", "match": "", "error": "", "quality": "any", "page": "1"}

_ICONS: Final = {
    "RUNNING": ":blue[:material/progress_activity:]",
    "SUCCEEDED": ":green[:material/check_circle:]",
    "FAILED": ":red[:material/error:]",
    "TIMED_OUT": ":red[:material/timer_off:]",
    "ABORTED": ":orange[:material/block:]",
}
_MARKS: Final = {"review": ":orange[needs review]", "degraded": ":orange[degraded]", "cached": "from the cache"}


def show() -> None:
    """Show the page."""
    if name := st.query_params.get("execution"):
        execution.show(name, _link)
        return
    chosen = {name: st.query_params.get(name, default) for name, default in _DEFAULTS.items()}
    for name, options in (("status", _STATUS), ("since", _SINCE), ("quality", _QUALITY)):
        _check(name, chosen[name], list(options))
    if not _PAGE.fullmatch(chosen["page"]):
        _check("page", chosen["page"], ["1", "2", "..."])
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Executions", width="stretch")
        st.button("Refresh", icon=":material/refresh:", on_click=_search_anew, args=(chosen,), shortcut="u")
    _filters(chosen)
    current = st.session_state.get("executions")
    if current is None or current[0] != _identity(chosen):
        _search_anew(chosen)
    watched = chosen["page"] == "1" and st.session_state.get("executions_running", False) and not _continued()
    st.fragment(_results, run_every=_REFRESH_S if watched else None)(chosen, watched)


def _check(name: str, value: str, accepted: list[str]) -> None:
    if value not in accepted:
        raise UsageError(
            f"The address has an unknown {name}", field=name, value=value, remedy=f"Use one of: {', '.join(accepted)}."
        )


def _filters(chosen: dict[str, str]) -> None:
    """Show the filters. The address has their values, so that it can be shared and the browser can go back."""
    for name in ("status", "since", "match", "error", "quality"):
        st.session_state[name] = chosen[name]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.segmented_control(
            "Status",
            list(_STATUS),
            format_func=str.capitalize,
            required=True,
            key="status",
            on_change=_store,
            args=("status",),
        )
        st.selectbox(
            "Started", list(_SINCE), format_func=_SINCE.__getitem__, key="since", **_stored("since"), width=150
        )
        st.text_input("Object key or name", key="match", **_stored("match"), placeholder="photos/cup.jpg", width=240)
        st.text_input("Error", key="error", **_stored("error"), placeholder="Corrupt", width=150)
        st.selectbox(
            "Result", list(_QUALITY), format_func=_QUALITY.__getitem__, key="quality", **_stored("quality"), width=150
        )


def _stored(name: str) -> dict[str, Any]:
    return {"on_change": _store, "args": (name,)}


def _store(name: str) -> None:
    """Write the value of a filter into the address."""
    value = str(st.session_state[name]).strip()
    st.query_params.pop("page", None)
    if value == _DEFAULTS[name]:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = value


def _identity(chosen: dict[str, str]) -> tuple[str, ...]:
    return tuple(value for name, value in chosen.items() if name != "page")


def _search_anew(chosen: dict[str, str]) -> None:
    wanted = Filter(
        statuses=_STATUS[chosen["status"]],
        since=datetime.now(UTC) - timedelta(hours=_HOURS[chosen["since"]]),
        text=chosen["match"].strip(),
        error=chosen["error"].strip(),
        quality=None if chosen["quality"] == "any" else chosen["quality"],  # type: ignore[arg-type]
        may_see=session.user().may_see,
    )
    search = Search(session.stack(), wanted, _descriptions())
    st.session_state["executions"] = (_identity(chosen), search)
    st.session_state["executions_continued"] = False


def _continue() -> None:
    """Continue the search. It ends the updates, which start the search anew."""
    st.session_state["executions_continued"] = True


def _continued() -> bool:
    return bool(st.session_state.get("executions_continued"))


@st.cache_resource(show_spinner=False)
def _descriptions() -> Descriptions:
    """Return the summaries that all sessions share."""
    return Descriptions(session.stack())


def _results(chosen: dict[str, str], watched: bool) -> None:
    """Show a page of the executions, and update it while one of them is running."""
    number = int(chosen["page"])
    if watched and _continued():
        st.rerun()
    if watched or "executions" not in st.session_state:
        _search_anew(chosen)
    search: Search = st.session_state["executions"][1]
    try:
        _find(search, number * _PAGE_SIZE + 1)
        found = search.page(number, _PAGE_SIZE)
    except Exception:
        del st.session_state["executions"]  # it cannot be continued: it would seem complete
        raise
    user = session.user()
    with st.container(gap="xxsmall"):
        for one in found:
            _row(one, user)
    if not found and search.complete:
        _nothing(chosen)
    _navigation(search, number)
    running = any(one.status == "RUNNING" for one in found)
    if running != st.session_state.get("executions_running", False):
        st.session_state["executions_running"] = running
        st.rerun()  # starts or ends the updates


def _find(search: Search, count: int) -> None:
    """Continue a search unless it has found this many. It ends soon enough to be interrupted by another filter."""
    if search.found >= count or search.complete:
        return
    with st.spinner("Searching"):
        for _ in range(DESCRIBED // CHUNK):
            search.find(count, CHUNK)


def _row(one: ExecutionSummary, user: User) -> None:
    """Show an execution as a row, which is two lines on a phone."""
    with st.container(key=f"row-{one.name}"):
        left, right = st.columns([1, 1], vertical_alignment="center", gap="xxsmall")
        with left:
            if user.may_see(one.source_key):
                key = one.source_key or one.name
                name, whole = _name(key), errors.literal(key)
            else:
                name, whole = execution.OF_ANOTHER_USER, None
            _link(f"{_ICONS.get(one.status, '')} {errors.literal(name)}", {"execution": one.name}, help=whole)
        right.markdown(" · ".join(_facts(one)))


def _facts(one: ExecutionSummary) -> list[str]:
    took = "" if one.seconds is None else f"in {duration(one.seconds)}"
    outcome = f":red[{errors.literal(one.error or one.status)}]" if one.status in FAILED else one.status.capitalize()
    score = "" if one.score is None else f"quality {one.score:.2f}"
    marks = [_MARKS[mark] for mark in one.marks]
    return [part for part in (local_time(one.started_at), f"{outcome} {took}".strip(), score, *marks) if part]


def _nothing(chosen: dict[str, str]) -> None:
    if _identity(chosen) == _identity(dict(_DEFAULTS)):
        st.info("No execution yet. Every upload starts one: drop an image on the page Remove.", icon=":material/info:")
    else:
        st.info("No execution matches these filters.", icon=":material/search_off:")
        _link("Clear filters", {})


def _navigation(search: Search, number: int) -> None:
    """Show the links to other pages, and how far the search got."""
    with st.container(horizontal=True, vertical_alignment="center"):
        if number > 1:
            _link("Newer", {"page": str(number - 1)}, icon=":material/chevron_left:")
        if search.found > number * _PAGE_SIZE:
            _link("Older", {"page": str(number + 1)}, icon=":material/chevron_right:")
        first, last = (number - 1) * _PAGE_SIZE + 1, min(number * _PAGE_SIZE, search.found)
        if last >= first:
            more = "" if search.complete else " or more"
            st.markdown(f":small[{first:,} to {last:,} of {search.found:,}{more}]", width="content")
    if not search.complete and search.found <= number * _PAGE_SIZE:
        reached = f", back to {local_time(search.reached)}" if search.reached else ""
        st.markdown(f":small[{search.scanned:,} executions searched{reached}.]")
        st.button("Search further", icon=":material/manage_search:", on_click=_continue)


def _link(label: str, query: dict[str, str], *, icon: str = "", help: str | None = None) -> None:
    """Show a button that goes to another address of this page. It keeps the filters unless ``query`` is empty.

    Streamlit's own links do not change the address if they stay on the page.

    Args:
        label: text of the button, Markdown.
        query: what the address has besides the filters: ``execution`` or ``page``.
        icon: icon before the text.
        help: text that appears over the button, Markdown.
    """
    kept = {name: st.query_params[name] for name in _DEFAULTS if name in st.query_params and query}
    if "execution" not in query:
        kept.pop("page", None)
    address = {**kept, **{name: value for name, value in query.items() if value != _DEFAULTS.get(name)}}
    key = f"go-{label}-{'-'.join(query.values())}"
    if st.button(label, key=key, icon=icon or None, help=help, type="tertiary"):
        st.query_params.from_dict(address)
        st.rerun()  # a click in a fragment runs only that


def _name(key: str) -> str:
    """Return a key with the file name first, which a narrow window shows, too."""
    folder, _, name = key.rpartition("/")
    return f"{name or key} · {_shortened(folder, _FOLDER_CHARS)}" if folder else key


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"
