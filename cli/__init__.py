"""The ``cryodc`` command: every file parses one verb, calls the library and prints."""
