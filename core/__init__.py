"""The image core: bytes in, a cut-out with its facts out. It knows arrays and files, nothing of AWS."""
