"""Pure pruning solvers, (weight, hessian, budget) -> (weight', mask, statistics), and the stage that runs them."""
