"""Data that crosses process boundaries: workflow state, results, failure reports, webhooks, API and object keys."""
