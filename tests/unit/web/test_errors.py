import pytest

from web.errors import literal


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("cup.jpg", r"cup\.jpg"),
        ("![pix](a.png) [click](b) _a_", r"\!\[pix\]\(a\.png\) \[click\]\(b\) \_a\_"),
        (":red[a] $x$ `b` &lt;", r"\:red\[a\] \$x\$ \`b\` \&lt;"),
    ],
)
def test_markdown_of_a_name_is_shown_as_text(text: str, markdown: str) -> None:
    assert literal(text) == markdown


def test_a_text_of_several_lines_is_one_line() -> None:
    assert literal("damaged\n\n- item\r\n    # heading") == r"damaged \- item \# heading"
