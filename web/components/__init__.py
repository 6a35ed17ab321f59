"""Controls that Streamlit does not have."""
