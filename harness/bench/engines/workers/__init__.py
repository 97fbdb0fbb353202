"""One process per engine; those of peers run in environments of their own, by path, and import nothing of ours."""
