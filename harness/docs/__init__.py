"""The generated parts of docs/: reference pages, planning tables, pictures. `python -m harness.docs docs` writes them."""
