"""Summaries of articles and dialogues: CNN/DailyMail, DialogSum, and their pocket form."""
