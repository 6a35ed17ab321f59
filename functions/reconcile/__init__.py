"""Reconcile: report executions that ended without a result or a failure report."""
