"""The pages, one module each. Each is a Streamlit script in a function."""
