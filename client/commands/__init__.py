"""Commands of ``pbr``: one module per command, with its tables."""
