"""The last stage of every job: what it did, as CloudWatch metrics."""
