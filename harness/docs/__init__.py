"""What is generated in docs/ (reference, planning tables, pictures); `python -m harness.docs docs` writes it."""
