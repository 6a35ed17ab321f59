"""The web page: a Streamlit app that tries, explains and reviews the work of a stack."""
