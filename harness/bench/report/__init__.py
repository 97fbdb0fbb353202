"""How large the HTML report is, and how long it takes to build and to open, on a made-up run of many variants."""
