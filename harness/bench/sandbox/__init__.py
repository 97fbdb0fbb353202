"""`sparsebench bench sandbox`: what the sandbox holds back, what it lets through, and how fast."""
