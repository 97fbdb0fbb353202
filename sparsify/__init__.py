"""Makes sparse and sparse-quantized variants of a language model.

The face of this package is `sparsify.recipe.load_recipe` (what to do) and `sparsify.run.make_variant` (do it).
"""
