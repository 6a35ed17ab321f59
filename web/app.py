"""The Streamlit script of the web page: its frame, and the page that the address names."""

from pathlib import Path

import streamlit as st

from web import session
from web.views import executions, overview, remove, review

st.set_page_config(
    page_title="Precision Background Remover", page_icon=str(Path(__file__).with_name("icon.png")), layout="wide"
)

page = st.navigation(
    [
        st.Page(remove.show, title="Remove", icon=":material/content_cut:", url_path="remove", default=True),
        st.Page(executions.show, title="Executions", icon=":material/account_tree:", url_path="executions"),
        st.Page(review.show, title="Review", icon=":material/rate_review:", url_path="review"),
        st.Page(overview.show, title="Overview", icon=":material/monitoring:", url_path="overview"),
    ],
    position="top",
)
user = session.user()
if st.session_state.setdefault("user", user.id) != user.id:  # a browser can come back as another user
    st.session_state.clear()
    st.session_state["user"] = user.id
page.run()
