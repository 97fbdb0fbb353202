"""The leaderboard measured: seconds and bytes on a made-up set of models, and the error rate of its ranks."""
