"""The stages of an execution in words, as a list that fills while it runs."""

import html
from typing import Final

from web.removals import Removal, State

NAMES: Final = {
    "Validate": "Check the image",
    "LookUpCache": "Check the cache",
    "ServeCached": "Copy the result from the cache",
    "SaveSidecar": "Describe the result",
    "CheckOwner": "Look for the same work in progress",
    "WaitForOwner": "Wait for the same work",
    "ClaimWork": "Reserve the work",
    "TakeOverClaim": "Take over the work",
    "SegmentOnLambda": "Find the subject",
    "SegmentOnEcs": "Find the subject on ECS",
    "SegmentOnSageMaker": "Find the subject on SageMaker",
    "SegmentOnSageMakerAsync": "Find the subject on SageMaker",
    "Refine": "Refine the edge",
    "Encode": "Write the result",
    "SaveCache": "Save to the cache",
    "RecordFailure": "Report the failure",
    "ReleaseClaim": "Release the work",
    "PublishMetrics": "Publish metrics",
    "StartWebhook": "Call the webhook",
    "DeadLetterNotice": "Keep the webhook call",
}
"""What a state does, by the name of the state."""

_AHEAD: Final = (("Validate",), ("SegmentOnLambda", "SegmentOnEcs", "SegmentOnSageMaker"), ("Refine",), ("Encode",))
_LAST: Final = {"ServeCached", "RecordFailure"}
"""After these, no main stage starts."""

STYLE: Final = """
.pbr-stages p, .pbr-stages li { display: flex; justify-content: space-between; gap: 0.75rem; margin: 0; }
.pbr-stages p { padding-bottom: 0.5rem; overflow-wrap: anywhere; }
.pbr-stages ol { list-style: none; margin: 0; padding: 0; font-size: 0.9375rem; }
.pbr-stages li { padding: 0.1875rem 0; }
.pbr-stages li::before { content: "\\2713"; width: 1rem; flex: none; text-align: center; }
.pbr-stages li.failed::before { content: "\\2717"; }
.pbr-stages li span:first-of-type { flex: 1; }
.pbr-stages span:last-of-type { font-variant-numeric: tabular-nums; white-space: nowrap; }
.pbr-stages li.current { font-weight: 600; }
.pbr-stages li.current::before { content: ""; width: 0.75rem; height: 0.75rem; margin: 0.375rem 0.125rem;
  box-sizing: border-box; border-radius: 50%; border: 2px solid color-mix(in srgb, currentColor 25%, transparent);
  border-top-color: currentColor; animation: pbr-turn 0.9s steps(8) infinite; }
.pbr-stages li.next { opacity: 0.7; }
.pbr-stages li.next::before { content: ""; }
@keyframes pbr-turn { to { transform: rotate(1turn); } }
"""
"""Style of the list."""


def listed(image: Removal) -> str:
    """Return the stages of an image as an HTML list, with the seconds that each one took, and what is ahead."""
    waiting = {State.WAITING: "Waiting for other images", State.UPLOADING: "Upload"}.get(image.state)
    steps: list[tuple[str, float | None, str]] = [(waiting, None, "current") if waiting else ("Upload", None, "past")]
    if image.state is State.RUNNING and not image.stages:
        steps.append(("Start", None, "current"))
    for event in image.stages:
        ended = event.kind in ("finished", "failed")
        suffix = {"retried": " (retry)", "failed": " (failed)"}.get(event.kind, "")
        name = NAMES.get(event.stage, event.stage) + suffix
        style = "failed" if event.kind == "failed" else "past" if ended else "current"
        steps.append((name, event.seconds if ended else None, style))
    steps += [(name, None, "next") for name in _ahead(image)]
    rows = "".join(
        f'<li class="{state}"><span>{html.escape(name)}</span>'
        f"<span>{f'{seconds:.1f} s' if seconds is not None else ''}</span></li>"
        for name, seconds, state in steps
    )
    title = f"<p><strong>{html.escape(image.name)}</strong><span>{image.elapsed_s():.1f} s</span></p>"
    return f'<div class="pbr-stages">{title}<ol aria-label="Stages">{rows}</ol></div>'


def _ahead(image: Removal) -> list[str]:
    """Return the main stages that have not started."""
    begun = {event.stage for event in image.stages}
    if image.state.ended or begun & _LAST:
        return []
    return [NAMES[states[0]] for states in _AHEAD if not begun & set(states)]
