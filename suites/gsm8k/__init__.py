"""Grade-school arithmetic in words: GSM8K and its pocket form."""
