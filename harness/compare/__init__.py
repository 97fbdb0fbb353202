"""`sparsebench compare`: two variants or two runs, item by item. From records alone; imports no torch."""
