"""Users of the page, and whose pictures they may see."""

import pytest

from client.errors import NotSignedInError
from web import users
from web.users import user_of


def cookie_of(header):
    return {users.COOKIE: header.partition("=")[2].partition(";")[0]}


def test_cookie_of_a_browser_is_random_and_scripts_cannot_read_it():
    first, second = users.new_cookie(secure=True), users.new_cookie(secure=True)
    assert cookie_of(first) != cookie_of(second)
    assert all(attribute in first for attribute in ("HttpOnly", "SameSite=Strict", "Secure"))


def test_cookie_works_without_https_on_a_laptop():
    assert "Secure" not in users.new_cookie(secure=False)


def test_folder_does_not_contain_the_cookie():
    cookies = cookie_of(users.new_cookie(secure=True))
    assert cookies[users.COOKIE] not in user_of({}, cookies).folder


def test_request_without_a_cookie_belongs_to_no_user():
    with pytest.raises(NotSignedInError, match="Allow cookies"):
        user_of({}, {})


def test_users_see_their_own_uploads_and_those_that_did_not_come_from_the_page():
    anna, ben = (user_of({}, {users.COOKIE: name}) for name in ("anna", "ben"))
    assert anna.may_see(f"{anna.folder}1/photo.jpg")
    assert anna.may_see("photos/cup.jpg")
    assert not ben.may_see(f"{anna.folder}1/photo.jpg")
    assert not ben.may_see("web/photo.jpg")
