"""The page Review: doubtful cut-outs, the worst first, decided by keyboard; decisions, and their export."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import streamlit as st

from client.errors import sdk_errors
from client.review_session import ReviewSession
from client.reviews import Filter, Review, Reviews, to_csv, to_manifest
from core.errors import BackgroundRemoverError
from core.segmentation import registry
from core.types import Precision
from functions.contracts.result import REASONS, reason_text
from web import errors, pictures, session
from web.components.cut_out import Background, Next, Shown, cut_out
from web.pictures import Picture
from web.users import User

_VERDICTS: Final = {"accept": "Accepted", "reject": "Rejected", "retry": "Retried"}
_BACKGROUNDS: Final[tuple[Background, ...]] = ("checkerboard", "white", "black")
_SAME: Final = "same"
_STRIP: Final = 8
_PREFETCHED: Final = 3
_POLL_S: Final = 2.0
_ROWS: Final = 100


def show() -> None:
    """Show the page."""
    user = session.user()
    reviews = Reviews(session.stack(), user.folder)
    with st.container(horizontal=True, vertical_alignment="center", key="review_head"):
        st.title("Review", width="content", anchor=False)
        view, filters = _choice()
    if used := [text for text in (filters.model, filters.reason and _sentence(filters.reason), filters.prefix) if text]:
        _small("Filter: " + " · ".join(errors.literal(text) for text in used))
    if view == "Decisions":
        _decisions(reviews, filters)
        return
    if notice := st.session_state.pop("review_notice", None):
        st.toast(notice, icon=":material/refresh:")
    reviewing = _session(reviews, user, filters)
    _open(reviewing, user)
    if reviewing.retrying:
        _watch(reviewing)


def _choice() -> tuple[str, Filter]:
    """Show what can be chosen, and return the view and the filter."""
    view = st.segmented_control(
        "View", ["To review", "Decisions"], default="To review", required=True, label_visibility="collapsed"
    )
    with st.popover("Filter", icon=":material/filter_list:"):
        model = st.selectbox("Model", _models(), index=None, placeholder="All models", key="review_model")
        reason = st.selectbox("Reason", list(REASONS), index=None, placeholder="All reasons", format_func=_sentence)
        prefix = st.text_input("Name of the upload starts with", placeholder="photos/shoes/")
    return view, Filter(model or "", reason or "", prefix.strip())


def _session(reviews: Reviews, user: User, filters: Filter) -> ReviewSession:
    """Return the person's session; another filter starts another one."""
    found = st.session_state.get("reviewing")
    if not isinstance(found, ReviewSession) or found.filters != filters:
        found = st.session_state["reviewing"] = ReviewSession(reviews, user.name, filters)
    return found


@st.fragment
def _open(reviewing: ReviewSession, user: User) -> None:
    """Show the current review and what can be done. A decision runs only this part again."""
    problem = _act(reviewing)
    total, review = reviewing.decided + reviewing.left, reviewing.current
    if total:
        st.progress(reviewing.decided / total, text=f"{reviewing.decided} of {reviewing.total} decided")
    _actions(reviewing)
    _options()
    if problem:
        errors.show(problem)
    if review is None:
        _end(reviewing)
        return
    _facts(review)
    _show_pictures(reviewing, review, user)


def _act(reviewing: ReviewSession) -> Exception | None:
    """Do what the last rerun asked for, before anything is drawn, and return the error."""
    action: Callable[[], Any] | None = st.session_state.pop("review_action", None)
    if action is None:
        return None
    retrying = len(reviewing.retrying)
    try:
        action()
    except (BackgroundRemoverError, *sdk_errors()) as error:
        return error
    if bool(retrying) != bool(reviewing.retrying):
        st.rerun()  # starts to watch the retry
    return None


def _actions(reviewing: ReviewSession) -> None:
    review = reviewing.current
    nothing, seen = review is None, review.id if review else ""
    with st.container(horizontal=True, gap="small", key="review_actions"):
        _button("Accept", "A", "check", lambda: reviewing.decide("accept", seen), seen, disabled=nothing)
        _button("Reject", "X", "close", lambda: reviewing.decide("reject", seen), seen, disabled=nothing)
        _button("Retry", "T", "refresh", lambda: reviewing.retry(_changes(review), seen), seen, disabled=nothing)
        _button("Undo", "U", "undo", reviewing.undo, disabled=not reviewing.can_undo)
        _button("Previous", "Left", "arrow_back", reviewing.previous, disabled=nothing)
        _button("Next", "Right", "arrow_forward", reviewing.next, disabled=nothing)


def _options() -> None:
    with st.container(horizontal=True, gap="small", key="review_options"):
        _button("Zoom", "Z", "zoom_in", _toggle_zoom)
        _button("Background", "B", "contrast", _next_background)
        with st.popover("Retry with", icon=":material/tune:"):
            st.selectbox("Model", [_SAME, *_models()], format_func=_named_model, key="review_retry_model")
            levels = [_SAME, *(level.value for level in Precision)]
            st.selectbox("Precision", levels, index=len(levels) - 1, format_func=_named_level, key="review_retry_level")
            _small(
                "Press T to process the image again with these options. The new result replaces this one and is "
                "reviewed again."
            )


def _button(
    label: str, shortcut: str, icon: str, action: Callable[[], Any], seen: str = "", *, disabled: bool = False
) -> None:
    """Show a button.

    Args:
        label: text of the button.
        shortcut: key that presses it.
        icon: name of the icon.
        action: what it does.
        seen: ID of the review that it is about. Buttons of two reviews have different keys: Streamlit would call the
            action of the new one when the old one is pressed twice.
        disabled: whether it can be pressed.
    """
    st.button(
        label,
        icon=f":material/{icon}:",
        shortcut=shortcut,
        on_click=lambda: st.session_state.update(review_action=action),
        disabled=disabled,
        key=f"review_do_{label.lower()}_{seen}",
    )


def _changes(review: Review | None) -> dict[str, Any]:
    """Return the options of a retry."""
    chosen = {
        "model": st.session_state.get("review_retry_model", _SAME),
        "precision_level": st.session_state.get("review_retry_level", Precision.ULTRA_HIGH.value),
    }
    now = {"model": review.model, "precision_level": review.precision} if review else {}
    return {name: now.get(name) if value == _SAME else value for name, value in chosen.items()}


def _toggle_zoom() -> None:
    st.session_state["review_zoom"] = not st.session_state.get("review_zoom", False)


def _background() -> Background:
    number: int = st.session_state.get("review_background", 0)
    return _BACKGROUNDS[number]


def _next_background() -> None:
    st.session_state["review_background"] = (st.session_state.get("review_background", 0) + 1) % len(_BACKGROUNDS)


def _facts(review: Review) -> None:
    badges = [f":orange-badge[{errors.literal(_sentence(reason))}]" for reason in review.reasons]
    badges += [":blue-badge[Made by a retry]"] if review.is_retry else []
    st.markdown(" ".join(badges) or ":gray-badge[No reason given]")
    source = review.facts["source"]
    others = len(review.sources) - 1
    parts = [
        errors.literal(_short(review.key)),
        f"score {review.score:.2f}",
        f"{errors.literal(review.model)}, {review.precision.replace('_', ' ')}",
        f"{source['width']} x {source['height']}",
        *([f"and {others} other upload{'s' if others > 1 else ''} with the same cut-out"] if others else []),
    ]
    _small(" · ".join(parts))
    if review.problem:
        st.warning(errors.literal(review.problem), icon=":material/warning:")


def _show_pictures(reviewing: ReviewSession, review: Review, user: User) -> None:
    following = [one for one in reviewing.upcoming(_STRIP) if user.may_see(one.key)]
    if not user.may_see(review.key):
        st.info("Another user uploaded this image on the web page. Only that user sees it.")
        return
    chosen, zoomed = cut_out(
        Shown(pictures.address(_source(review), user), f"Original: {review.key}"),
        Shown(pictures.address(_result(review), user), f"Cut-out of {review.key}, {review.model}"),
        [
            Next(
                id=one.id,
                src=pictures.address(_result(one), user, "thumbnail"),
                alt=f"Cut-out of {one.key}",
                label="retrying" if one.state == "retrying" else f"{one.score:.2f}",
                waits=one.state != "open",
            )
            for one in following
        ],
        background=_background(),
        zoom=st.session_state.get("review_zoom", False),
        same_geometry=_shows_all(review.facts),
        prefetch=[
            pictures.address(picture, user)
            for one in following[:_PREFETCHED]
            for picture in (_result(one), _source(one))
        ],
    )
    if zoomed is not None:
        st.session_state["review_zoom"] = zoomed
        st.rerun(scope="fragment")
    if chosen:
        reviewing.go_to(chosen)
        st.rerun(scope="fragment")


def _shows_all(facts: Mapping[str, Any]) -> bool:
    """Return whether a result shows the whole image, in its shape."""
    source, image = facts["source"], facts["image"]
    return bool(source["width"] * image["height"] == source["height"] * image["width"])


def _source(review: Review) -> Picture:
    source = review.facts["source"]
    return Picture(source["bucket"], source["key"], source["version_id"])


def _result(review: Review) -> Picture:
    result = review.facts["result"]
    return Picture(result["bucket"], result["key"], result["version_id"])


def _end(reviewing: ReviewSession) -> None:
    """Show that no review is open."""
    if waiting := len(reviewing.retrying):
        them = "1 retry" if waiting == 1 else f"{waiting} retries"
        st.info(f"Waiting for {them}. Their cut-outs appear here.", icon=":material/hourglass_top:")
    elif reviewing.decided:
        st.success("All cut-outs are decided.", icon=":material/done_all:")
    elif reviewing.filters != Filter():
        st.info("No open review matches the filter.", icon=":material/filter_list:")
    else:
        st.info(
            "No cut-out needs a review. Cut-outs whose quality is doubtful appear here.", icon=":material/done_all:"
        )
    if st.button("Check for new reviews", icon=":material/sync:"):
        reviewing.look_again()
        st.rerun(scope="fragment")


@st.fragment(run_every=_POLL_S)
def _watch(reviewing: ReviewSession) -> None:
    """Show the cut-outs of retries when they are done."""
    for before, now in reviewing.settle():
        name = errors.literal(before.key.rpartition("/")[2])
        if now.id != before.id:
            st.session_state["review_notice"] = f"The retry of {name} is done."
        else:
            st.session_state["review_notice"] = f"{name}: {errors.literal(now.problem)}"
        st.rerun()


# ---- Decisions


def _decisions(reviews: Reviews, filters: Filter) -> None:
    """Show the decisions, the newest first, and their exports."""
    page = reviews.page("decided", filters, limit=_ROWS)
    if not page.reviews:
        st.info("There are no decisions yet.", icon=":material/history:")
        return
    chosen = st.dataframe(
        [_row(review) for review in page.reviews],
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            "Score": st.column_config.NumberColumn(format="%.2f"),
        },
        key="review_decisions",
    )
    if page.after:
        _small(f"The newest {_ROWS} decisions. The exports have all of them.")
    if rows := chosen["selection"]["rows"]:
        _decided(reviews, page.reviews[rows[0]])
    _exports(reviews, filters)


def _row(review: Review) -> dict[str, Any]:
    decision = review.decision
    return {
        "Upload": review.key,
        "Decision": _VERDICTS[decision.verdict] if decision else "",
        "Who": decision.by if decision else "",
        "When": datetime.fromisoformat(decision.at) if decision else None,
        "Score": review.score,
        "Model": review.model,
        "Precision": review.precision,
        "Reasons": "; ".join(_sentence(reason) for reason in review.reasons),
    }


def _decided(reviews: Reviews, review: Review) -> None:
    """Show a decided cut-out, which can be opened again."""
    user = session.user()
    with st.container(border=True):
        if user.may_see(review.key):
            for column, picture, alt in zip(
                st.columns(2), (_source(review), _result(review)), ("Original", "Cut-out"), strict=True
            ):
                with column:
                    pictures.show(picture, user, f"{alt}: {review.key}")
        if st.button("Open again", icon=":material/undo:", help="The cut-out is reviewed again."):
            try:
                reviews.undo(review)
            except (BackgroundRemoverError, *sdk_errors()) as error:
                errors.show(error)
            else:
                st.session_state.pop("reviewing", None)
                st.rerun()


def _exports(reviews: Reviews, filters: Filter) -> None:
    st.subheader("Export")
    st.download_button(
        "Decisions as CSV",
        data=lambda: to_csv(reviews.all("decided", filters)),
        file_name="decisions.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
    st.markdown("Process the rejected ones again with other options:")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        model = st.selectbox("Model", _models(), index=None, placeholder="Of the run", key="review_export_model")
        levels = [level.value for level in Precision]
        level = st.selectbox("Precision", levels, index=None, placeholder="Of the run", key="review_export_level")
        changes = {name: value for name, value in (("model", model), ("precision_level", level)) if value}
        uploads = session.stack().outputs["UploadsBucket"]
        st.download_button(
            "Rejected as manifest",
            data=lambda: to_manifest(_rejected(reviews, filters), changes, uploads),
            file_name="rejected.jsonl",
            mime="application/jsonl",
            icon=":material/download:",
            on_click="ignore",
        )
    _small("Run it with `pbr bulk rejected.jsonl`. `--model` and `--precision` apply if unchanged here.")


def _rejected(reviews: Reviews, filters: Filter) -> list[Review]:
    decided = reviews.all("decided", filters)
    return [review for review in decided if review.decision and review.decision.verdict == "reject"]


def _small(text: str) -> None:
    """Show Markdown in small type. Captions of Streamlit have too little contrast."""
    st.markdown(f":small[{text}]")


def _sentence(reason: str) -> str:
    """Return a reason in words that start with a capital letter."""
    text = reason_text(reason)
    return text[:1].upper() + text[1:]


def _models() -> list[str]:
    custom = session.stack().parameters.get("CustomModels", "")
    return [*registry.with_custom(custom), registry.CLASSICAL]


def _named_model(model: str) -> str:
    return "Same model" if model == _SAME else model


def _named_level(level: str) -> str:
    return "Same precision" if level == _SAME else level.replace("_", " ")


def _short(key: str) -> str:
    """Return the end of a long key."""
    return key if len(key) <= 60 else f"…{key[-59:]}"
