"""The pages of executions, without a stack."""

from datetime import timedelta
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from client.executions.details import Details, load
from client.executions.search import arn_of
from tests.fakes.stack_in_memory import NOW, Executions, History, stack, uploaded
from web.users import User


def executions_page():  # Streamlit runs the source, without the imports of this module
    from web.views import executions

    executions.show()


def heading_of(found):
    from web.views.execution import _heading

    _heading(found)


def rows_of(summaries, user):
    from web.views.executions import _row

    for one in summaries:
        _row(one, user)


def ended(key: str) -> Details:
    executions = Executions()
    facts: dict[str, Any] = {"status": "FAILED", "error": "E", "stopDate": NOW + timedelta(seconds=1)}
    arn = executions.add("a", uploaded(key, "1"), **facts)
    executions.histories[arn] = [History().enter("Validate").events]
    deployed = stack(executions)
    return load(deployed, executions.known[arn_of(deployed, "a")])


@pytest.mark.parametrize("number", ["0", "²", "-1", "x", "1" * 7])
def test_an_invalid_number_of_a_page_is_rejected(number: str) -> None:
    app = AppTest.from_function(executions_page)
    app.query_params["page"] = number
    app.run()
    [error] = app.exception
    assert f"The address has an unknown page (page: '{number}')" in error.message


def test_markdown_in_an_object_key_is_shown_as_text() -> None:
    found = ended("a/![pix](a.png) _b_.jpg")
    app = AppTest.from_function(heading_of, args=(found,)).run()
    assert app.title[0].value == r"\!\[pix\]\(a\.png\) \_b\_\.jpg"
    app = AppTest.from_function(rows_of, args=([found.summary], User("1", "jo"))).run()
    assert r"\!\[pix\]" in app.button[0].label and r"\!\[pix\]" in app.button[0].help


def test_the_row_of_another_users_image_does_not_name_it() -> None:
    summary = ended("web/1f3a/secret.png").summary
    for user, is_named in ((User("1f3a", "jo"), True), (User("2", "al"), False)):
        app = AppTest.from_function(rows_of, args=([summary], user)).run()
        [button] = app.button
        assert ("secret" in button.label + button.help) == is_named
        assert ("Image of another user" in button.label) != is_named
