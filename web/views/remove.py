"""The page Remove: drop images, watch their stages, compare the results, and save them."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx

from client.errors import JobFailure
from core.options import Options, OutputFormat
from functions.contracts.object_keys import result_keys, second_attempt_keys
from functions.contracts.result import reasons_text
from web import archives, errors, pictures, removals, session, settings, stages, uploads
from web.components import compare, downloads, gallery, paste
from web.components.compare import Comparison
from web.components.downloads import Download
from web.components.gallery import Thumbnail
from web.pictures import Picture
from web.removals import Removal, Removals, State
from web.users import User
from web.views import executions

_POLL_S: Final = 0.4
_registry: Final = removals.Registry()

_OPTIONS: Final = "remove.options"
_SELECTED: Final = "remove.selected"
_DROPPED: Final = "remove.dropped"

_STYLE: Final = """
.st-key-remove-first [data-testid="stFileUploaderDropzone"] {
  flex-direction: column; justify-content: center; align-items: center; gap: 0.75rem; min-height: 17rem;
  border: 2px dashed color-mix(in srgb, currentColor 30%, transparent); border-radius: 1rem;
}
.st-key-remove-first [data-testid="stFileUploaderDropzone"] > * { flex: none; width: auto; align-self: center; }
.st-key-remove-first [data-testid="stFileUploaderDropzone"]::before {
  content: "Drop images here"; font-size: 1.25rem; font-weight: 600;
}
.st-key-remove-more [data-testid="stFileUploaderDropzone"] {
  flex-direction: row; align-items: center; padding: 0.375rem 0.5rem; min-height: 0;
}
"""


def show() -> None:
    """Show the page."""
    st.html(f"<style>{_STYLE}{stages.STYLE}</style>")
    st.title("Remove backgrounds")
    images = _images()
    work, controls = st.columns([3.2, 1.3], gap="large")
    with controls:
        st.session_state[_OPTIONS] = settings.show(session.stack(), session.jobs().upload_background)
        _again(images)
    with work:
        _intake(images)
        is_timed = images.running
        st.fragment(_work, run_every=_POLL_S if is_timed else None)(is_timed=is_timed)


def _images() -> Removals:
    """Return the images of the user."""
    user = session.user()
    return _registry.of(user.id, lambda: removals.of(session.jobs, session.stack, user.folder))


def _intake(images: Removals) -> None:
    """Show where images come from: large as long as there are none."""
    if images.images:
        with st.container(key="remove-more"):
            left, right = st.columns([2, 3], vertical_alignment="center")
            with left:
                _drop_zone()
            with right:
                _other_sources(None)
        return
    st.markdown("Drop photos here, or paste one with Ctrl+V. You get each subject without its background.")
    with st.container(key="remove-first"):
        _drop_zone()
    _other_sources(_example())


def _drop_zone() -> None:
    number = st.session_state.setdefault(_DROPPED, 0)
    st.file_uploader(
        "Images",
        accept_multiple_files=True,
        key=f"{_DROPPED}.{number}",
        on_change=_take_files,
        label_visibility="collapsed",
    )


def _other_sources(example: Path | None) -> None:
    with st.container(horizontal=True, vertical_alignment="top"):
        st.text_input(
            "Image URL",
            key="remove.url",
            placeholder="Or enter the URL of an image",
            label_visibility="collapsed",
            on_change=_take_typed_url,
        )
        if url := paste.show():
            _add_url(url)
            st.rerun()
        if example:
            st.button("Try an example", on_click=_take_example, args=(example,))


def _take_files() -> None:
    """Add the files in the uploader, and empty it, so that Streamlit no longer holds them."""
    key = f"{_DROPPED}.{st.session_state[_DROPPED]}"
    dropped = st.session_state.get(key) or []
    st.session_state[_DROPPED] += 1
    images = _images()
    try:
        added = [images.add_file(file.name, file.getvalue(), _options()) for file in dropped[: images.room]]
    finally:
        context = get_script_run_ctx()
        if context and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
            for file in dropped:
                context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)
    if len(added) < len(dropped):
        st.toast(f"The limit is {removals.MOST} images. Clear the finished ones, and add the others.")
    if context and (count := uploads.rejected(context.session_id)):
        most_mb = uploads.MOST_BYTES >> 20
        st.toast(
            f"Files not added: {count}. At most {most_mb} MB fit at a time, less if others upload, too. Add them again."
        )
    _select(added)


def _take_typed_url() -> None:
    url = st.session_state["remove.url"].strip()
    st.session_state["remove.url"] = ""
    if url:
        _add_url(url)


def _take_example(example: Path) -> None:
    _select([_images().add_file(example.name, example.read_bytes(), _options())])


def _add_url(url: str) -> None:
    if _images().room:
        _select([_images().add_url(url, _options())])


def _select(added: list[Removal]) -> None:
    if added:
        st.session_state[_SELECTED] = next((one for one in added if not one.failure), added[0]).id


def _options() -> dict[str, Any]:
    return dict(st.session_state.get(_OPTIONS, {}))


def _example() -> Path | None:
    """Return a photo that scikit-image, which the page on a laptop has, comes with; None if it is not installed."""
    found = find_spec("skimage")
    photo = Path(found.origin).parent / "data/coffee.png" if found and found.origin else None
    return photo if photo and photo.is_file() else None


def _work(*, is_timed: bool) -> None:
    """Show the images. As a fragment it runs again and again while some are in progress.

    Args:
        is_timed: whether the fragment has a timer.
    """
    images = _images()
    if not images.images:
        return
    user = session.user()
    selected = images.find(st.session_state.get(_SELECTED)) or images.images[0]
    if len(images.images) > 1:
        selected = _strip(images, selected, user)
    _one(images, selected, user)
    _failures(images, selected)
    if images.running != is_timed:
        st.rerun()  # with another timer: buttons of a fragment run only the fragment


def _strip(images: Removals, selected: Removal, user: User) -> Removal:
    """Show all images as thumbnails, and what can be done with all; return the selected one."""
    chosen = gallery.show([_thumbnail(image, user) for image in images.images], selected.id)
    if chosen and (found := images.find(chosen)):
        st.session_state[_SELECTED] = found.id
        selected = found
    done = [image for image in images.images if image.sidecar]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(_counted(images), width="stretch")
        if done and not images.running:
            names = removals.distinct(image.result_name for image in done)
            entries = [(_result(image), name) for image, name in zip(done, names, strict=True)]
            token = archives.token(entries, user)
            downloads.show([Download("Download all as ZIP", archives.PATH, token, primary=False)], key="all")
        _clear_button("Clear all")
    return selected


def _thumbnail(image: Removal, user: User) -> Thumbnail:
    sidecar = image.sidecar
    if sidecar is None:
        note = f"failed: {image.failure.message}" if image.failure else image.state.value
        return Thumbnail(image.id, image.name, image.state.value, note, None)
    state, note = ("review", "done, to review") if sidecar["quality"]["review"] else ("done", "done")
    return Thumbnail(image.id, image.name, state, note, pictures.address(_result(image), user, "thumbnail"))


def _counted(images: Removals) -> str:
    """Return how many images there are in each state, in words."""
    states = [image.state for image in images.images]
    review = sum(bool(image.sidecar and image.sidecar["quality"]["review"]) for image in images.images)
    counts = {
        f"done ({review} to review)" if review else "done": states.count(State.DONE),
        "failed": states.count(State.FAILED),
        "in progress": sum(state in (State.UPLOADING, State.RUNNING) for state in states),
        "waiting": states.count(State.WAITING),
    }
    shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"**{len(states)} images**: {shown}"


def _failures(images: Removals, selected: Removal) -> None:
    """List the failed images of a batch."""
    failed = [image for image in images.images if image.failure]
    if failed and failed != [selected]:
        with st.expander(f"{len(failed)} failed", icon=":material/error:"):
            for image in failed:
                st.markdown(f"**{errors.literal(image.name)}**")
                _failure(image.failure)


def _failure(failure: JobFailure | None) -> None:
    if failure:
        errors.box(failure.error, failure.message, failure.field, failure.value, failure.remedy)


def _clear_button(label: str) -> None:
    if st.button(label, type="tertiary", icon=":material/delete:"):
        _images().clear()
        st.session_state.pop(_SELECTED, None)
        st.rerun()  # the whole page: this button belongs to a fragment


def _one(images: Removals, image: Removal, user: User) -> None:
    """Show one image in its state."""
    if image.sidecar:
        _done(images, image, image.sidecar, user)
    elif image.state is State.FAILED:
        st.markdown(f"**{errors.literal(image.name)}**")
        _failure(image.failure)
        with st.container(horizontal=True):
            _links(image)
            if len(images.images) == 1:
                _clear_button("Clear")
    else:
        _progress(image, user)


def _progress(image: Removal, user: User) -> None:
    """Show the stages of an image so far."""
    with st.container(border=True):
        left, right = st.columns([3, 2], gap="large", vertical_alignment="center")
        with left:
            if image.upload:
                pictures.show(_source(image), user, f"Original: {image.name}")
            else:
                st.skeleton(height=240)
        with right:
            st.html(stages.listed(image))


def _done(images: Removals, image: Removal, sidecar: Mapping[str, Any], user: User) -> None:
    """Show the result of an image."""
    options = Options.model_validate(sidecar["options"])
    result = _result(image)
    compare.show(
        Comparison(
            name=image.name,
            before=pictures.address(_source(image), user),
            after=pictures.address(result, user),
            alpha=_alpha(sidecar, options, user),
            aligned=is_aligned(options),
        )
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        label = f"Download {result.key.rpartition('.')[2].upper()}"
        downloads.show([Download(label, pictures.address(result, user, "file", image.result_name))], key="one")
        _links(image)
        if len(images.images) == 1:
            _clear_button("Clear")
    _verdict(sidecar)
    st.caption(" · ".join(errors.literal(fact) for fact in described(image, sidecar)))
    with st.expander("Stages and times", icon=":material/timeline:"):
        st.html(stages.listed(image))


def _verdict(sidecar: Mapping[str, Any]) -> None:
    """Say whether the result can be used, and what to look at."""
    quality = sidecar["quality"]
    if quality["review"]:
        reasons = reasons_text(quality["reasons"])
        st.warning(
            f"**Look at this result before you use it:** {errors.literal(reasons)}.", icon=":material/visibility:"
        )
    else:
        st.success(f"No review needed. Quality: {quality['score']:.2f} of 1.", icon=":material/check_circle:")
    if sidecar["degraded"]:
        st.info("Segmentation failed on the requested host, so it ran on Lambda.", icon=":material/info:")
    for warning in sidecar["warnings"]:
        st.info(errors.literal(warning), icon=":material/info:")


def _links(image: Removal) -> None:
    if image.execution:
        st.page_link(
            st.Page(executions.show, title="Executions", url_path="executions"),
            label="Open the execution",
            icon=":material/account_tree:",
            query_params={"execution": image.execution.rpartition(":")[2]},
        )


def _again(images: Removals) -> None:
    """Offer to process images again if the settings have changed."""
    changed = _changed(images)
    if not changed:
        return
    st.markdown("The settings have changed.")
    label = "Apply to this image" if len(images.images) == 1 else "Apply to the selected image"
    st.button(label, on_click=_process_again, args=(False,), width="stretch")
    if len(changed) > 1:
        st.button(f"Apply to all {len(changed)}", on_click=_process_again, args=(True,), width="stretch")


def _changed(images: Removals) -> list[Removal]:
    """Return the images that were processed with other settings."""
    return [one for one in images.images if one.state.ended and one.upload and dict(one.options) != _options()]


def _process_again(all_images: bool) -> None:
    images = _images()
    if not images.images:
        return
    selected = images.find(st.session_state.get(_SELECTED)) or images.images[0]
    for image in _changed(images):
        if all_images or image is selected:
            new = images.again(image, _options())
            if image is selected:
                st.session_state[_SELECTED] = new.id


def described(image: Removal, sidecar: Mapping[str, Any]) -> list[str]:
    """Return the facts of a result as short texts."""
    result, model = sidecar["image"], sidecar["model"]
    hosts = {"lambda": "Lambda", "ecs": "ECS", "sagemaker": "SageMaker"}
    facts = [
        image.name,
        f"{result['width']} x {result['height']} px",
        f"{result['format'].upper()}, {_size(result['bytes'])}",
        f"{model['name']} on {hosts[model['host']]}",
        f"{image.elapsed_s():.1f} s",
    ]
    if second := sidecar["escalation"]:
        facts.append(f"second attempt on {second['model']} {'kept' if second['kept'] == 'second' else 'not kept'}")
    return [*facts, "from the cache"] if sidecar["cache"]["hit"] else facts


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def is_aligned(options: Options) -> bool:
    """Return whether result and original show the same part in the same shape, at whatever size."""
    return (
        not options.crop
        and options.canvas == "original"
        and options.scale == "original"
        and options.position
        in (
            None,
            "original",
        )
    )


def has_alpha(options: Options) -> bool:
    """Return whether the result's transparency is the whole alpha."""
    has_background = any(
        getattr(options, name, None) for name in ("background_color", "background_key", "background_blur")
    )
    return options.format is not OutputFormat.JPEG and not has_background and not options.has_outline


def _alpha(sidecar: Mapping[str, Any], options: Options, user: User) -> str:
    """Return where the alpha view comes from; see :class:`Comparison`."""
    if options.output == "mask":
        return "itself"
    if has_alpha(options):
        return "own"
    key = sidecar["cache"]["key"]
    escalation = sidecar["escalation"]
    is_second = escalation is not None and escalation["kept"] == "second"
    alpha = second_attempt_keys(key)[1] if is_second else result_keys("", key, options).alpha
    return pictures.address(Picture(session.stack().outputs["WorkBucket"], alpha), user)


def _source(image: Removal) -> Picture:
    if image.upload is None:
        raise ValueError("the image was not uploaded")
    return Picture(session.stack().outputs["UploadsBucket"], image.upload.key, image.upload.version_id)


def _result(image: Removal) -> Picture:
    target = (image.sidecar or {})["result"]
    return Picture(target["bucket"], target["key"], target["version_id"])
