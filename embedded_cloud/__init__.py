"""The embedded cloud: the project's own template deployed on moto in one process, its functions run for real."""
