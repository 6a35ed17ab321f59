"""PublishMetrics: the last stage of every job."""
