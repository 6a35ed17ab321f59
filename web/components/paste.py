"""A button, and Ctrl+V anywhere on the page: paste images, or the URL of one."""

from web.components import component


def show() -> str | None:
    """Show the button.

    Pasted images go to the page's first file uploader, as if they had been dropped there.

    Returns:
        A URL that was just pasted; None otherwise.
    """
    pasted = component("paste")(key="paste", width="content", on_url_change=lambda: None)
    found: str | None = pasted.url
    return found
