"""Stage three: where exactly the subject ends."""
