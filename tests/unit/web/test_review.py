from functions.contracts.review import folder_of
from web.users import User


def test_reviews_of_uploads_of_the_page_belong_to_their_user() -> None:
    user = User("1f3a", "jo")
    assert folder_of(f"{user.folder}20261130/cup.png") == user.folder
    assert folder_of("photos/cup.png") == folder_of("web/cup.png") == ""
    assert user.may_see("photos/cup.png") and not user.may_see("web/cup.png")
