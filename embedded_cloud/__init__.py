"""The embedded cloud: the project's template deployed on moto, with functions and workers as local processes."""
