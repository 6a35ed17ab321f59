"""One execution or many: find them, and tell what each stage did, saw and cost."""
