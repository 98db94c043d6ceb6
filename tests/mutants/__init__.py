"""Changes the code in small ways and counts how many of these the tests notice; `make mutants`."""
