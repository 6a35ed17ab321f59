"""One-off investigations. The docs have their conclusions; run a study again when its subject changes."""
