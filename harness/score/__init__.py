"""Scores answers that someone else generated: files in the official tools' formats to verdicts and a summary."""
