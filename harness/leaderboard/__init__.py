"""A leaderboard over many studies and models: rank groups, one protocol a column, every number with its record."""
