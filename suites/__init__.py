"""What is measured: one folder per skill (data, prompt, scoring) and the registry that reads them."""
