"""What every stage needs: its job, its configuration, storage, and a way to be observed."""
