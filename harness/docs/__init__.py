"""The reference pages of docs/, made from the schemas and the command line: `python -m harness.docs docs/reference`."""
